-- Keeps events back until their time, by the server's clock. One that is kept already stays as
-- it is, so that a call whose answer was lost may be repeated.
--
-- KEYS[1]  the partition's delayed events (sorted set by milliseconds)
-- ARGV[1]  delay in milliseconds
-- ARGV[2]  the milliseconds from which on nothing is done any more; 0 for no such limit
-- ARGV[3]  and on: envelopes, one each
-- Returns  when they are due, in milliseconds since 1970; -1 where it is too late

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[2]) > 0 and now >= tonumber(ARGV[2]) then
  return -1
end
local due = now + ARGV[1]
for at = 3, #ARGV do
  redis.call('ZADD', KEYS[1], 'NX', due, ARGV[at])
end
return due
