-- Moves what is due from a sorted set to a stream, oldest first.
--
-- ZREM comes before XADD: the move is one step either way, and removing is allowed under full
-- memory and lets the rest of the script pass.
--
-- KEYS[1]  due set or delayed events (sorted set by milliseconds)
-- KEYS[2]  the stream they go to
-- ARGV[1]  the field that holds a member
-- ARGV[2]  how many at most
-- Returns  {how many were moved, milliseconds until the next one or -1}

local kind = redis.call('TYPE', KEYS[2])['ok']
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', no stream')
end
local refused = forbidden('XADD', KEYS[2], '*', ARGV[1], '')
if refused then
  return refused
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do
  redis.call('ZREM', KEYS[1], member)
  redis.call('XADD', KEYS[2], '*', ARGV[1], member)
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #next == 0 then
  return {#due, -1}
end
return {#due, math.max(0, next[2] - now)}
