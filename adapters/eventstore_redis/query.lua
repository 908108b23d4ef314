-- Shared by append.lua, read.lua and find.lua, which begin with it: the fields of an entry,
-- whether a query takes one (EventQuery.takes is the definition), and how much a call may do.
--
-- The log's keys. {ns} is the namespace and its hash tag: all of a log is in one cluster slot.
-- Every event costs an entry in the stream and its place in the indexes; per 10,000 events, with
-- 10 events an entity, docs/redis.md counts the bytes.
--
--   {ns}:meta    hash    log_id, least_reader, least_writer; recorded_at of the last commit
--   {ns}:log     stream  the events, entry ids <sequence>-0; XLEN is the head, for they are dense
--   {ns}:ids:T   hash    event id (16 bytes) → sequence, of the tenant T
--   {ns}:times   zset    <timestamp><sequence in 16 digits>, equal scores, so ordered by text
--   {ns}:firsts  list    sequences of each entity's first event
--   {ns}:entity:T\0TYPE\0ID  {ns}:entity_type:X  {ns}:entity_id:X  {ns}:workflow:X
--   {ns}:tenant:X  {ns}:type:X  {ns}:tag:X
--                list    sequences of the events with that value, ascending; the length of an
--                        entity's is its version
--
-- Lists, for sequences only ever grow: an element takes 3 to 6 bytes however long the list, a
-- page is found by bisection, and no sorted set or stream comes near that.
--
-- An entry of the stream has few fields, since each costs time and room in every script:
--
--   event     id (16 bytes), timestamp (19 digits), then tenant, entity type, entity id, type,
--             workflow, schema version and each tag, all ended by NUL (no name contains one)
--   data      JSON, never looked into
--   metadata  JSON, never looked into
--   stored    version, first sequence of the batch, and microseconds since 1970, by the server
--
-- A timestamp is microseconds since 1970 + 2e18, compared as text: Lua's numbers are doubles.

-- Where values stand in an entry: name, value, name, value …
local EVENT, STORED = 2, 8
local FACTS = '^' .. string.rep('([^%z]*)%z', 5) .. '[^%z]*()'
local FIRST_FACT = 36

-- While a script runs, nobody else is served. So work is counted, in steps of some 0.1 µs, and a
-- call that has used up its budget returns what it has, to be asked again for the rest: within
-- 50 ms, on a machine half as fast too.
local BUDGET = 100000
local CANDIDATE = 60 -- to fetch an event of common size by itself
local budget = BUDGET

local function spend(steps)
  budget = budget - steps
end

local function exhausted()
  return budget <= 0
end

-- Spends steps on an entry, and those to copy it in and out; an error where it is no event.
local function spend_on(entry, steps)
  local values = entry[2]
  if #values ~= STORED then
    error('CORRUPT the entry ' .. entry[1] .. ' of the log is no event')
  end
  spend(steps + (#values[EVENT] + #values[4] + #values[6]) / 100)
end

local function check_log(meta, log_id)
  if redis.call('HGET', meta, 'log_id') ~= log_id then
    error('GONE the log was removed or replaced')
  end
end

local function id_of(event)
  return string.sub(event, 1, 16)
end

-- What orders by time, and is unique.
local function time_key(event, sequence)
  return string.sub(event, 17, 35) .. string.format('%016d', sequence)
end

-- Replace what refers to arguments by the texts themselves, and count the steps that judging an
-- event may take.
local function prepare(query)
  query.weight = 1 + 2 * (#query.equal + #query.tags)
  for _, test in ipairs(query.equal) do
    test.taken = {}
    for _, argument in ipairs(test[2]) do
      test.taken[ARGV[argument]] = true
    end
  end
  for place, argument in ipairs(query.tags) do
    query.tags[place] = ARGV[argument]
  end
  query.from_time = query.from_time and ARGV[query.from_time]
  query.to_time = query.to_time and ARGV[query.to_time]
  for _, alternative in ipairs(query.any_of) do
    query.weight = query.weight + prepare(alternative).weight
  end
  return query
end

-- facts: tenant, entity type, entity id, type, workflow, and where the tags begin.
local function takes_facts(query, sequence, event, facts)
  if query.above and sequence <= query.above or query.up_to and sequence > query.up_to then
    return false
  end
  for _, test in ipairs(query.equal) do
    if not test.taken[facts[test[1]]] then
      return false
    end
  end
  for _, tag in ipairs(query.tags) do
    if not string.find(event, tag, facts[6], true) then
      return false
    end
  end
  if query.from_time or query.to_time then
    local time = string.sub(event, 17, 35)
    if query.from_time and time < query.from_time or query.to_time and time > query.to_time then
      return false
    end
  end
  for _, alternative in ipairs(query.any_of) do
    if takes_facts(alternative, sequence, event, facts) then
      return true
    end
  end
  return #query.any_of == 0
end

local function takes(query, sequence, values)
  if query.first and string.sub(values[STORED], 1, 2) ~= '1 ' then
    return false
  end
  local event = values[EVENT]
  return takes_facts(query, sequence, event, {string.match(event, FACTS, FIRST_FACT)})
end

local function sequence_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

-- An entry as it is returned: a table within a table costs more than all texts of an event.
local function put(found, entry)
  local values = entry[2]
  local last = #found
  found[last + 1], found[last + 2], found[last + 3] = entry[1], values[EVENT], values[4]
  found[last + 4], found[last + 5] = values[6], values[STORED]
end
