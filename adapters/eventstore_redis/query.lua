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
local FEW = 8 -- alternatives that are as soon tried one by one
local TAGS = 6 -- the last of the facts: where the tags begin

-- While a script runs, nobody else is served. So work is counted, in steps, and a call that has used
-- up its budget returns what it has, to be asked again for the rest. What is counted is not time: the
-- budget is some 20 ms of work on a machine that does nothing else. To begin with a query of a
-- thousand alternatives takes longer, the garbage that it leaves to be collected included.
local BUDGET = 100000
local CANDIDATE = 60 -- to fetch an event of common size by itself …
local IN_CHUNK = 40 -- … or among others
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

-- Calls back with each value that a part of a query asks for, and where it stands in facts.
local function each_value(part, with)
  for _, test in ipairs(part.equal) do
    for value in pairs(test.taken) do
      with(test[1], value)
    end
  end
  for _, tag in ipairs(part.tags) do
    with(TAGS, string.sub(tag, 2, -2))
  end
end

-- File alternatives, lest each be tried on every event: each under the values of one of its
-- tests, that whose values the fewest alternatives ask for. An event is then judged by those
-- that are filed under what it has, and by those that name no value.
local function file(alternatives)
  local asking, filed, others = {}, {}, {}
  for place = 1, TAGS do
    asking[place] = {}
  end
  local function ask(place, value)
    asking[place][value] = (asking[place][value] or 0) + 1
  end
  for _, alternative in ipairs(alternatives) do
    each_value(alternative, ask)
  end
  local function put_in(place, value, alternative)
    filed[place] = filed[place] or {}
    filed[place][value] = filed[place][value] or {}
    table.insert(filed[place][value], alternative)
  end
  for _, alternative in ipairs(alternatives) do
    local fewest, best, best_tag = math.huge, nil, nil
    for _, test in ipairs(alternative.equal) do
      local most = 0
      for value in pairs(test.taken) do
        most = math.max(most, asking[test[1]][value])
      end
      if most < fewest then
        fewest, best = most, test
      end
    end
    for _, tag in ipairs(alternative.tags) do
      local name = string.sub(tag, 2, -2)
      if asking[TAGS][name] < fewest then
        fewest, best_tag = asking[TAGS][name], name
      end
    end
    if best_tag then
      put_in(TAGS, best_tag, alternative)
    elseif best then
      for value in pairs(best.taken) do
        put_in(best[1], value, alternative)
      end
    else
      others[#others + 1] = alternative
    end
  end
  return filed, others
end

-- Replace what refers to arguments by the texts themselves, and file the alternatives.
local function prepare(query)
  spend(10 * (1 + #query.equal + #query.tags))
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
  if query.any_of then
    for _, alternative in ipairs(query.any_of) do
      prepare(alternative)
    end
    query.filed, query.others = {}, query.any_of
    if #query.any_of > FEW then
      query.filed, query.others = file(query.any_of)
    end
  end
  return query
end

-- facts: tenant, entity type, entity id, type, workflow, and where the tags begin.
local function fits(part, sequence, event, facts)
  if part.above and sequence <= part.above or part.up_to and sequence > part.up_to then
    return false
  end
  for _, test in ipairs(part.equal) do
    if not test.taken[facts[test[1]]] then
      return false
    end
  end
  for _, tag in ipairs(part.tags) do
    spend(3)
    if not string.find(event, tag, facts[TAGS], true) then
      return false
    end
  end
  if part.from_time or part.to_time then
    local time = string.sub(event, 17, 35)
    if part.from_time and time < part.from_time or part.to_time and time > part.to_time then
      return false
    end
  end
  return true
end

local function any_fits(alternatives, sequence, event, facts)
  for place = 1, alternatives and #alternatives or 0 do
    spend(5)
    if fits(alternatives[place], sequence, event, facts) then
      return true
    end
  end
  return false
end

local function takes(query, sequence, values)
  spend(10)
  if query.first and string.sub(values[STORED], 1, 2) ~= '1 ' then
    return false
  end
  local event = values[EVENT]
  local facts = {string.match(event, FACTS, FIRST_FACT)}
  if not fits(query, sequence, event, facts) then
    return false
  end
  if not query.any_of then
    return true
  end
  spend(10)
  if any_fits(query.others, sequence, event, facts) then
    return true
  end
  for place, filed in pairs(query.filed) do
    if place < TAGS and any_fits(filed[facts[place]], sequence, event, facts) then
      return true
    end
  end
  local filed = query.filed[TAGS]
  if filed then
    for tag in string.gmatch(string.sub(event, facts[TAGS]), '[^%z]+') do
      spend(3)
      if any_fits(filed[tag], sequence, event, facts) then
        return true
      end
    end
  end
  return false
end

local function sequence_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

-- An entry as it is returned: a table within a table costs more than all texts of an event.
local function put(found, entry)
  spend(40)
  local values = entry[2]
  local last = #found
  found[last + 1], found[last + 2], found[last + 3] = entry[1], values[EVENT], values[4]
  found[last + 4], found[last + 5] = values[6], values[STORED]
end
