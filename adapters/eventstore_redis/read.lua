-- Returns a page of events, or counts them, and never works longer than its budget (query.lua)
-- allows: what is left then, the caller asks for from where this one stopped.
--
-- The candidates come from the most selective index (see query.lua), the log itself among them;
-- each is then fetched and judged by the whole query.
--
-- KEYS  1 meta, 2 log, 3 times, then the lists that the query names by number
-- ARGV  1 the request, JSON of numbers and flags (calls.py), 2 the log id; then the texts that
--       the request refers to
--
-- Returns the head, where to resume (a sequence; in the order of time <timestamp><sequence>; ''
-- when done), how much of the offset is still to skip, how many matched, and their entries: id,
-- event, data, metadata, stored, id …

local SORTABLE = 1000 -- candidates that may be gathered and sorted in one call
local CHUNK = 100 -- fetched at once, at the most …
local FIRST_CHUNK = 10 -- … and to begin with
local MERGING = 40 -- steps to take a candidate from among many lists

local log, times = KEYS[2], KEYS[3]
check_log(KEYS[1], ARGV[2])
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

local sizes = {}
local function size_of(key)
  sizes[key] = sizes[key] or redis.call('LLEN', KEYS[key])
  return sizes[key]
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

-- Steps to find where to begin and end in a list: by bisection, and the longer it is, the
-- further it is to its middle.
local function steps_to_seek(size)
  local ends = (after > 0 and 1 or 0) + (up_to < head and 1 or 0)
  return 10 + ends * math.log(size + 1) / math.log(2) * (5 + size / 50000)
end

-- How many candidates the best index gives, where they come from (nil stands for the log), how
-- many of them are gathered at once, by time, and how many steps it takes to begin.
local function best_source(part)
  local size, best, gathered, start = math.max(up_to - after, 0), nil, 0, 0
  for _, lists in ipairs(part.lists) do
    local total, steps = 0, 0
    for _, key in ipairs(lists) do
      local its_size = size_of(key)
      total, steps = total + its_size, steps + steps_to_seek(its_size)
    end
    if total == 0 then
      return 0, {}, 0, steps
    end
    if total < size and steps < BUDGET / 4 then
      size, best, start = total, lists, steps
    end
  end
  if part.from_time or part.to_time then
    local total = redis.call('ZLEXCOUNT', times, bounds_of_time(part))
    if total < size and total <= SORTABLE then
      size, best, gathered, start = total, {part}, total, 30 + total * 5
    end
  end
  if part.any_of then
    local total, sources, its_gathered, its_start = 0, {}, 0, 0
    local known = {}
    for _, alternative in ipairs(part.any_of) do
      local one_size, one_sources, one_gathered, one_start = best_source(alternative)
      local all_known = one_sources ~= nil
      for _, source in ipairs(one_sources or {}) do
        if not known[source] then
          known[source], all_known = true, false
          sources[#sources + 1] = source
        end
      end
      if not all_known then -- several may share their lists
        total = total + one_size
        its_gathered, its_start = its_gathered + one_gathered, its_start + one_start
      end
    end
    -- Those from the log are fetched many at once
    if total * 2 < size and its_gathered <= SORTABLE and its_start < BUDGET / 2 then
      size, best, gathered, start = total, sources, its_gathered, its_start
    end
  end
  return size, best, gathered, start
end

-- The iterators below return sequences in order, the log's also the entry, then nil.

local function along_log()
  local sequence, step = after, 1
  if not ascending then
    sequence, step = up_to + 1, -1
  end
  local chunk, index, wanted = {}, 0, FIRST_CHUNK
  return function()
    sequence, index = sequence + step, index + 1
    if sequence <= after or sequence > up_to then
      return nil
    end
    if index > #chunk then
      index = 1
      if ascending then
        chunk = redis.call('XRANGE', log, sequence, up_to, 'COUNT', wanted)
      else
        chunk = redis.call('XREVRANGE', log, sequence, after + 1, 'COUNT', wanted)
      end
      wanted = CHUNK
    end
    return sequence, check(chunk[index], sequence)
  end
end

local function along_list(number)
  local key, size = KEYS[number], size_of(number)
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
  local chunk, index, wanted = {}, 0, FIRST_CHUNK
  return function()
    index = index + 1
    if index > #chunk then
      if low > high then
        return nil
      end
      index = 1
      if ascending then
        chunk = redis.call('LRANGE', key, low, math.min(low + wanted - 1, high))
        low = low + #chunk
      else
        local backwards = redis.call('LRANGE', key, math.max(high - wanted + 1, low), high)
        high = high - #backwards
        chunk = {}
        for place = #backwards, 1, -1 do
          chunk[#chunk + 1] = backwards[place]
        end
      end
      wanted = CHUNK
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

-- Merges several, by a heap: the one whose next is the first of all stands at its top.
local function merged(iterators)
  local sign = ascending and 1 or -1
  local heap = {}
  for _, iterator in ipairs(iterators) do
    local sequence = iterator()
    if sequence then
      heap[#heap + 1] = {sign * sequence, iterator}
    end
  end
  local function sink(place)
    local size, one = #heap, heap[place]
    while true do
      local child = 2 * place
      if child < size and heap[child + 1][1] < heap[child][1] then
        child = child + 1
      end
      if child > size or heap[child][1] >= one[1] then
        break
      end
      heap[place], place = heap[child], child
    end
    heap[place] = one
  end
  for place = math.floor(#heap / 2), 1, -1 do
    sink(place)
  end
  local last
  return function()
    while #heap > 0 do
      local top = heap[1]
      local first = top[1]
      local sequence = top[2]()
      if sequence then
        top[1] = sign * sequence
      else
        heap[1] = heap[#heap]
        heap[#heap] = nil
      end
      if #heap > 1 then
        sink(1)
      end
      spend(MERGING)
      if first ~= last then
        last = first
        return sign * first
      end
    end
  end
end

local function along_all(sources)
  local iterators = {}
  for place, source in ipairs(sources) do
    iterators[place] = type(source) == 'table' and along_times(source) or along_list(source)
  end
  if #iterators == 1 then
    return iterators[1]
  end
  return merged(iterators)
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
  local fetching = sources and CANDIDATE or IN_CHUNK
  while true do
    local sequence, entry = next_candidate()
    if not sequence then
      return reply('')
    end
    entry = entry or entry_at(sequence)
    spend_on(entry, fetching)
    if (certain or takes(query, sequence, entry[2])) and add(entry) then
      return reply('')
    end
    if exhausted() then
      return reply(tostring(sequence))
    end
  end
end

local function along_the_times()
  local low, high = bounds_of_time(query)
  local resume = request.resume and ARGV[request.resume]
  while true do
    local members
    if ascending then
      low = resume and '(' .. resume or low
      members = redis.call('ZRANGEBYLEX', times, low, high, 'LIMIT', 0, CHUNK)
    else
      high = resume and '(' .. resume or high
      members = redis.call('ZREVRANGEBYLEX', times, high, low, 'LIMIT', 0, CHUNK)
    end
    for _, member in ipairs(members) do
      resume = member
      local sequence = tonumber(string.sub(member, 20))
      spend(5)
      if sequence > after and sequence <= up_to then
        local entry = entry_at(sequence)
        spend_on(entry, CANDIDATE)
        if takes(query, sequence, entry[2]) and add(entry) then
          return reply('')
        end
      end
      if exhausted() then
        return reply(resume)
      end
    end
    if #members < CHUNK then
      return reply('')
    end
  end
end

-- Few candidates: gather, sort, and cut the page out.
local function sorted_by_time(sources)
  local resume = request.resume and ARGV[request.resume]
  local matches = {}
  for sequence, entry in sources and along_all(sources) or along_log() do
    entry = entry or entry_at(sequence)
    spend_on(entry, sources and CANDIDATE or IN_CHUNK)
    local key = time_key(entry[2][EVENT], sequence)
    if takes(query, sequence, entry[2])
      and (not resume or key ~= resume and (key > resume) == ascending) then
      matches[#matches + 1] = {key, entry}
    end
    if exhausted() then
      budget = BUDGET / 2 -- they are large: what is half gathered cannot be gone on with
      return along_the_times()
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

if after >= up_to then
  return reply('')
end
-- A query of a single field is counted without a look at any event.
if request.count and request.exact then
  for _, key in ipairs(query.lists[1]) do
    local its_size = redis.call('LLEN', KEYS[key])
    count = count + math.max(rank(KEYS[key], its_size, up_to) - rank(KEYS[key], its_size, after), 0)
  end
  return reply('')
end
local size, sources, _, start = best_source(query)
if request.skip > 0 then
  size, sources = 0, query.lists[1]
end
spend(start)
budget = math.max(budget, BUDGET / 4) -- however long it took to begin, each call gets on
if request.by_time then
  local few = not request.walking and size <= SORTABLE and size * CANDIDATE <= budget
  return few and sorted_by_time(sources) or along_the_times()
end
return in_order_of_sequence(sources)
