-- Returns the recorded entries among some identities: id, event, data, metadata, stored, id …
-- after how many of the identities were looked up; the others are for another call.
--
-- KEYS  1 meta, 2 log, then the ids hashes of tenants
-- ARGV  1 the log id; then the number of an ids hash, an event id, a number, an event id …

check_log(KEYS[1], ARGV[1])
local found = {}
local looked = 0
for index = 2, #ARGV, 2 do
  local sequence = redis.call('HGET', KEYS[tonumber(ARGV[index])], ARGV[index + 1])
  if sequence then
    local id = sequence .. '-0'
    local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
    if not entry then
      error('CORRUPT the event at sequence ' .. sequence .. ' is missing from the log')
    end
    spend_on(entry, CANDIDATE)
    put(found, entry)
  end
  looked = looked + 1
  if exhausted() then
    break
  end
end
return {looked, found}
