-- Returns the recorded entries among some identities: id, event, data, metadata, stored, id …
--
-- KEYS  1 log, then the ids hashes of tenants
-- ARGV  number of an ids hash, event id, number, event id …

local found = {}
for index = 1, #ARGV, 2 do
  local sequence = redis.call('HGET', KEYS[tonumber(ARGV[index])], ARGV[index + 1])
  if sequence then
    local id = sequence .. '-0'
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if not entry then
      error('CORRUPT the event at sequence ' .. sequence .. ' is missing from the log')
    end
    put(found, entry)
  end
end
return found
