-- Keeps events back until their time, by the server's clock.
--
-- KEYS[1]  the partition's delayed events (sorted set by milliseconds)
-- ARGV[1]  delay in milliseconds
-- ARGV[2]  and on: envelopes, one each
-- Returns  when they are due, in milliseconds since 1970

local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for at = 2, #ARGV do
  redis.call('ZADD', KEYS[1], due, ARGV[at])
end
return due
