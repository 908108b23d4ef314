-- Creates the log where it is asked for and not there, and tells what is there: the log id, the
-- formats a reader and a writer must understand, by which mark it is being dropped (drop.lua), and
-- a command of append.lua that this user may not use. Nothing where there is no log.
--
-- KEYS  1 meta, 2 log, 3 times, 4 firsts
-- ARGV  1 whether to create: '1' or '0', 2 a log id to create it with, 3 least reader,
--       4 least writer

local function type_of(key)
  return redis.call('TYPE', key).ok
end

local function foreign(key)
  return redis.error_reply('FOREIGN the key ' .. key .. ' is there and is not of a log')
end

local kinds = {'hash', 'stream', 'zset', 'list'}
local there = type_of(KEYS[1]) ~= 'none'
for place, kind in ipairs(kinds) do
  local actual = type_of(KEYS[place])
  if actual ~= 'none' and (actual ~= kind or not there) then
    return foreign(KEYS[place])
  end
end
if not there then
  if ARGV[1] == '0' then
    return {}
  end
  redis.call('HSET', KEYS[1], 'log_id', ARGV[2], 'least_reader', ARGV[3], 'least_writer', ARGV[4])
end
local known = redis.call('HMGET', KEYS[1], 'log_id', 'least_reader', 'least_writer', 'dropping')
if not known[4] and not (known[1] and known[2] and known[3]) then
  return foreign(KEYS[1])
end
-- Lua does not roll back: a right that is found missing halfway through an append would leave the
-- half of it. So they are tried, on a key of a kind that such a command refuses to touch.
for _, trial in ipairs({{'ZADD', KEYS[1], 0, 'x'}, {'RPUSH', KEYS[1], 'x'}}) do
  local reply = redis.pcall(unpack(trial))
  local told = tostring(reply.err)
  if string.find(told, 'NOPERM') or string.find(told, 'ACL') then
    known[5] = trial[1]
  end
end
return known
