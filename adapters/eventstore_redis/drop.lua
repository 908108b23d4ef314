-- Removes some keys of a log that is being dropped; begins with marking it as such.
--
-- What a crash leaves of a log that is half removed must not become part of a new one, so the
-- mark stands until the end, and nothing is written to what bears it (append.lua wants log_id).
-- It is the id of the log: who drops it too helps, and whoever comes late, when it is gone and
-- made anew, finds another mark or none and touches nothing.
--
-- KEYS  1 meta, then keys to remove
-- ARGV  1 the mark
--
-- Returns 1, or 0 where no log with this mark is there any more.

local meta, mark = KEYS[1], ARGV[1]
local known = redis.call('HMGET', meta, 'log_id', 'dropping')
if known[1] == mark then
  -- Every right that dropping takes is tried before anything changes. (No field nor key has
  -- these names.)
  redis.call('HDEL', meta, '')
  redis.call('UNLINK', KEYS[2])
  redis.call('HSET', meta, 'dropping', mark)
  redis.call('HDEL', meta, 'log_id')
elseif known[2] ~= mark then
  return 0
end
for place = 2, #KEYS do
  redis.call('UNLINK', KEYS[place])
end
return 1
