-- Returns a page of events, or counts them, and never works longer than BUDGET allows: what is
-- left then, the caller asks for from where this one stopped.
--
-- The candidates come from the most selective index (see query.lua), the log itself among them;
-- each is then fetched and judged by the whole query.
--
-- KEYS  1 log, 2 times, then the lists that the query names by number
-- ARGV  1 the request, JSON of numbers and flags (records.py); then the texts it refers to
--
-- Returns the head, where to resume (a sequence; in the order of time <timestamp><sequence>; ''
-- when done), how much of the offset is still to skip, how many matched, and their entries: id,
-- event, data, metadata, stored, id …

local BUDGET = 4000 -- candidates looked at in one call
local SORTABLE = 1000 -- candidates that may be gathered and sorted in one call
local CHUNK = 100

local log, times = KEYS[1], KEYS[2]
local request = cjson.decode(ARGV[1])
local query = prepare(request.query)
local ascending = request.ascending
local head = redis.call('XLEN', log)
local after = request.after
local up_to = math.min(request.up_to or head, head)

local function check(entry, sequence)
  if not entry or sequence_of(entry) ~= sequence then
    error('CORRUPT the event at sequence ' .. sequence .. ' is missing from the log')
  end
  return entry
end

local function entry_at(sequence)
  return check(redis.call('XRANGE', log, sequence .. '-0', sequence .. '-0')[1], sequence)
end

-- ':' follows '9', so it ends a range of texts that begin with the same digits.
local function bounds_of_time(part)
  return part.from_time and '[' .. part.from_time or '-',
    part.to_time and '[' .. part.to_time .. ':' or '+'
end

-- How many sequences of a list are not above this one.
local function rank(key, size, sequence)
  if sequence >= head then
    return size
  end
  local low, high = 0, sequence > 0 and size or 0
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', key, middle)) <= sequence then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- How many candidates the best index gives, and where they come from; nil stands for the log.
local function best_source(part)
  local size, best = math.max(up_to - after, 0), nil
  for _, lists in ipairs(part.lists) do
    local total = 0
    for _, key in ipairs(lists) do
      total = total + redis.call('LLEN', KEYS[key])
    end
    if total < size then
      size, best = total, lists
    end
  end
  if part.from_time or part.to_time then
    local total = redis.call('ZLEXCOUNT', times, bounds_of_time(part))
    if total < size and total <= SORTABLE then
      size, best = total, {part}
    end
  end
  if #part.any_of > 0 then
    local total, sources = 0, {}
    for _, alternative in ipairs(part.any_of) do
      local its_size, its_sources = best_source(alternative)
      total = total + its_size
      for _, source in ipairs(its_sources or {}) do
        sources[#sources + 1] = source
      end
    end
    if total < size then
      size, best = total, sources
    end
  end
  return size, best
end

-- The iterators below return sequences in order, the log's also the entry, then nil.

local function along_log()
  local sequence, step = after, 1
  if not ascending then
    sequence, step = up_to + 1, -1
  end
  local chunk, index = {}, 0
  return function()
    sequence, index = sequence + step, index + 1
    if sequence <= after or sequence > up_to then
      return nil
    end
    if index > #chunk then
      index = 1
      if ascending then
        chunk = redis.call('XRANGE', log, sequence, up_to, 'COUNT', CHUNK)
      else
        chunk = redis.call('XREVRANGE', log, sequence, after + 1, 'COUNT', CHUNK)
      end
    end
    return sequence, check(chunk[index], sequence)
  end
end

local function along_list(key)
  local size = redis.call('LLEN', key)
  local low = math.max(rank(key, size, after), request.skip)
  local high = rank(key, size, up_to) - 1
  if request.exact and #query.lists[1] == 1 then
    local jump = math.min(request.offset, math.max(high - low + 1, 0))
    request.offset = request.offset - jump
    if ascending then
      low = low + jump
    else
      high = high - jump
    end
  end
  local chunk, index = {}, 0
  return function()
    index = index + 1
    if index > #chunk then
      if low > high then
        return nil
      end
      index = 1
      if ascending then
        chunk = redis.call('LRANGE', key, low, math.min(low + CHUNK - 1, high))
        low = low + #chunk
      else
        local backwards = redis.call('LRANGE', key, math.max(high - CHUNK + 1, low), high)
        high = high - #backwards
        chunk = {}
        for place = #backwards, 1, -1 do
          chunk[#chunk + 1] = backwards[place]
        end
      end
    end
    return tonumber(chunk[index])
  end
end

local function along_times(part)
  local sequences = {}
  for _, member in ipairs(redis.call('ZRANGEBYLEX', times, bounds_of_time(part))) do
    local sequence = tonumber(string.sub(member, 20))
    if sequence > after and sequence <= up_to then
      sequences[#sequences + 1] = sequence
    end
  end
  table.sort(sequences, function(one, other)
    if ascending then
      return one < other
    end
    return one > other
  end)
  local index = 0
  return function()
    index = index + 1
    return sequences[index]
  end
end

local function along_all(sources)
  local iterators, nexts = {}, {}
  for place, source in ipairs(sources) do
    iterators[place] = type(source) == 'table' and along_times(source) or along_list(KEYS[source])
    nexts[place] = iterators[place]() or false
  end
  if #iterators == 1 then
    local first = nexts[1]
    return function()
      local sequence = first or iterators[1]()
      first = nil
      return sequence
    end
  end
  return function()
    local best
    for _, sequence in ipairs(nexts) do
      if sequence and (not best or (sequence < best) == ascending) then
        best = sequence
      end
    end
    for place, sequence in ipairs(nexts) do
      if sequence == best then
        nexts[place] = iterators[place]() or false
      end
    end
    return best
  end
end

local found, count, left = {}, 0, request.limit

-- Takes a candidate that matches; returns whether the page is full.
local function add(entry)
  count = count + 1
  if request.offset > 0 then
    request.offset = request.offset - 1
  elseif not request.count then
    put(found, entry)
    left = left - 1
  end
  return left == 0
end

local function reply(resume)
  return {head, resume, request.offset, count, found}
end

local function in_order_of_sequence(sources)
  local certain = sources and request.exact -- all of its index match
  local next_candidate = sources and along_all(sources) or along_log()
  local last
  for _ = 1, BUDGET do
    local sequence, entry = next_candidate()
    if not sequence then
      return reply('')
    end
    last = sequence
    entry = entry or entry_at(sequence)
    if (certain or takes(query, sequence, entry[2])) and add(entry) then
      return reply('')
    end
  end
  return reply(tostring(last))
end

-- Few candidates: gather, sort, and cut the page out.
local function sorted_by_time(sources)
  local resume = request.resume and ARGV[request.resume]
  local matches = {}
  for sequence, entry in sources and along_all(sources) or along_log() do
    entry = entry or entry_at(sequence)
    local key = time_key(entry[2][EVENT], sequence)
    if takes(query, sequence, entry[2])
      and (not resume or key ~= resume and (key > resume) == ascending) then
      matches[#matches + 1] = {key, entry}
    end
  end
  table.sort(matches, function(one, other)
    if ascending then
      return one[1] < other[1]
    end
    return one[1] > other[1]
  end)
  for _, match in ipairs(matches) do
    if add(match[2]) then
      break
    end
  end
  return reply('')
end

local function along_the_times()
  local low, high = bounds_of_time(query)
  local resume = request.resume and ARGV[request.resume]
  for _ = 1, BUDGET / CHUNK do
    local members
    if ascending then
      low = resume and '(' .. resume or low
      members = redis.call('ZRANGEBYLEX', times, low, high, 'LIMIT', 0, CHUNK)
    else
      high = resume and '(' .. resume or high
      members = redis.call('ZREVRANGEBYLEX', times, high, low, 'LIMIT', 0, CHUNK)
    end
    for _, member in ipairs(members) do
      local sequence = tonumber(string.sub(member, 20))
      if sequence > after and sequence <= up_to then
        local entry = entry_at(sequence)
        if takes(query, sequence, entry[2]) and add(entry) then
          return reply('')
        end
      end
    end
    if #members < CHUNK then
      return reply('')
    end
    resume = members[#members]
  end
  return reply(resume)
end

if after >= up_to then
  return reply('')
end
-- A query of a single field is counted without a look at any event.
if request.count and request.exact then
  for _, key in ipairs(query.lists[1] or {}) do
    local size = redis.call('LLEN', KEYS[key])
    count = count + math.max(rank(KEYS[key], size, up_to) - rank(KEYS[key], size, after), 0)
  end
  return reply('')
end
local size, sources = best_source(query)
if request.skip > 0 then
  size, sources = 0, query.lists[1]
end
if request.by_time then
  return size <= SORTABLE and sorted_by_time(sources) or along_the_times()
end
return in_order_of_sequence(sources)
