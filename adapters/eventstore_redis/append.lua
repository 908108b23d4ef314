-- Commits a group of batches, in order, each by itself, by the rules in eventstore/backend/planner.py:
-- repeat, versions, condition, accept. Everything of a batch is checked before any of it is
-- written (Lua does not roll back); a server that refuses to write refuses the first write.
--
-- KEYS  1 meta, 2 log, 3 times, 4 firsts, then whatever the plan names by its number
-- ARGV  1 the plan, JSON of numbers (calls.py); 2 the log id; then the texts of the events,
--       FIELDS each; then those of the conditions
--
-- Returns recorded_at and an outcome for each batch: ACCEPTED first_sequence version …,
-- REPEAT (some id is recorded; the caller compares), VERSION which actual, BEYOND head,
-- MATCH sequence, ANOTHER_PAST (its witness is gone), or AGAIN head witness: too much is new for a
-- look from here, or what is new fits a condition that came only in the rough; neither this batch
-- nor those after it were judged.

local ACCEPTED, REPEAT, VERSION_CONFLICT, BEYOND, MATCH, ANOTHER_PAST, AGAIN = 0, 1, 2, 3, 4, 5, 6
local FIELDS = 3 -- of an event in ARGV: event, data, metadata
local FIRST_TEXT = 3
local NEWS = 500 -- entries that a condition may look through here, within the budget
local PART = 4000 -- arguments to one command: an even number, and Lua's stack holds 8,000

local call = redis.call
local meta, log, times, firsts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local plan = cjson.decode(ARGV[1])

local known = call('HMGET', meta, 'log_id', 'recorded_at')
if known[1] ~= ARGV[2] then
  return redis.error_reply('GONE the log was removed or replaced')
end
local head = call('XLEN', log)
local now = call('TIME')
local recorded_at = now[1] .. string.format('%06d', now[2])
if known[2] and tonumber(known[2]) > tonumber(recorded_at) then
  recorded_at = known[2] -- a clock that was set back: the log's time stands still
end

local versions = {}
local function version_of(key)
  if not versions[key] then
    versions[key] = call('LLEN', KEYS[key])
  end
  return versions[key]
end

local function call_in_parts(command, key, arguments)
  for first = 1, #arguments, PART do
    call(command, key, unpack(arguments, first, math.min(first + PART - 1, #arguments)))
  end
end

-- Where the texts of an event are, by its place among all.
local function texts_at(place)
  return FIRST_TEXT + place * FIELDS
end

local function any_recorded(batch)
  for _, group in ipairs(batch.ids) do
    local ids = {}
    for index, offset in ipairs(group[2]) do
      ids[index] = id_of(ARGV[texts_at(batch.first + offset)])
    end
    group.ids = ids
    for first = 1, #ids, PART do
      local last = math.min(first + PART - 1, #ids)
      local found = call('HMGET', KEYS[group[1]], unpack(ids, first, last))
      for index = 1, last - first + 1 do
        if found[index] then
          return true
        end
      end
    end
  end
  return false
end

local function unmet_expectation(batch)
  for place, expected in ipairs(batch.expected) do
    local actual, wanted = version_of(expected[1]), expected[2]
    if wanted == -2 and actual == 0 or wanted >= 0 and wanted ~= actual then
      return {VERSION_CONFLICT, place - 1, actual}
    end
  end
end

-- The identity of the event at a sequence, as text; nil where there is none.
local function witness_at(sequence)
  local entry = call('XRANGE', log, sequence .. '-0', sequence .. '-0')[1]
  return entry and id_of(entry[2][EVENT]) .. string.match(entry[2][EVENT], '^[^%z]*', FIRST_FACT)
end

-- What the batches of this call have written is news as well: to be looked into again from here.
local function again()
  return {AGAIN, head, witness_at(head)}
end

local function unmet_condition(condition)
  if condition.witness and witness_at(condition.checked_to) ~= ARGV[condition.witness] then
    return {ANOTHER_PAST}
  end
  if condition.after > head then
    return {BEYOND, head}
  end
  if condition.match > 0 then
    return {MATCH, condition.match}
  end
  local checked_to = condition.checked_to
  if head - checked_to > NEWS then
    return again()
  end
  if checked_to < head then
    prepare(condition.query)
  end
  while checked_to < head do
    local news = call('XRANGE', log, checked_to + 1, '+', 'COUNT', 50)
    for _, entry in ipairs(news) do
      if exhausted() then
        return again()
      end
      spend_on(entry, IN_CHUNK)
      if takes(condition.query, sequence_of(entry), entry[2]) then
        return condition.rough and again() or {MATCH, sequence_of(entry)}
      end
    end
    checked_to = checked_to + 50
  end
end

-- Of all batches accepted, written together at the end: nothing above reads these keys, but for
-- the lengths that 'versions' keeps.
local pushed = {} -- by the number of a list's key: what is added to it
local pushed_to = {} -- those numbers, in a fixed order
local stamps, first_events = {}, {}
local written = false

local function accept(batch)
  if not written then
    -- The first write of all: a right to HSET that is missing shows here, where nothing is lost.
    -- (Those to RPUSH and ZADD are tried in open.lua.)
    call('HSET', meta, 'recorded_at', recorded_at)
    written = true
  end
  local first = head + 1
  local outcome = {ACCEPTED, first}
  local stored = ' ' .. first .. ' ' .. recorded_at
  for place, entity in ipairs(batch.entities) do
    local texts = texts_at(batch.first + place - 1)
    local event = ARGV[texts]
    local sequence = head + place
    local version = version_of(entity) + 1
    versions[entity] = version
    outcome[2 + place] = version
    if version == 1 then
      first_events[#first_events + 1] = sequence
    end
    call('XADD', log, sequence .. '-0', 'event', event, 'data', ARGV[texts + 1],
      'metadata', ARGV[texts + 2], 'stored', version .. stored)
    stamps[#stamps + 1] = 0
    stamps[#stamps + 1] = time_key(event, sequence)
  end
  for _, list in ipairs(batch.lists) do
    local sequences = pushed[list[1]]
    if not sequences then
      sequences = {}
      pushed[list[1]] = sequences
      pushed_to[#pushed_to + 1] = list[1]
    end
    for _, offset in ipairs(list[2]) do
      sequences[#sequences + 1] = first + offset
    end
  end
  for _, group in ipairs(batch.ids) do
    local pairs_of = {}
    for index, offset in ipairs(group[2]) do
      pairs_of[2 * index - 1] = group.ids[index]
      pairs_of[2 * index] = first + offset
    end
    call_in_parts('HSET', KEYS[group[1]], pairs_of)
  end
  head = head + #batch.entities
  return outcome
end

local outcomes = {}
for place, batch in ipairs(plan) do
  local outcome = any_recorded(batch) and {REPEAT} or unmet_expectation(batch)
    or batch.condition and unmet_condition(batch.condition)
  outcome = outcome or accept(batch)
  outcomes[place] = outcome
  if outcome[1] == AGAIN then
    break
  end
end
if written then
  for _, key in ipairs(pushed_to) do
    call_in_parts('RPUSH', KEYS[key], pushed[key])
  end
  call_in_parts('ZADD', times, stamps)
  call_in_parts('RPUSH', firsts, first_events)
end
return {recorded_at, outcomes}
