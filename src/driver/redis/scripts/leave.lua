-- Removes a consumer that is gone, where nothing is pending for it: XGROUP DELCONSUMER drops what
-- is, for good.
--
-- KEYS[1]  heartbeats (sorted set of "GROUP CONSUMER" by server milliseconds)
-- KEYS[2]  and on: the group's streams
-- ARGV[1]  group
-- ARGV[2]  consumer
-- ARGV[3]  "left" where it says so itself, "dead" where it counts as dead by its silence
-- ARGV[4]  milliseconds of silence after which a consumer counts as dead
-- Returns  1 gone from all streams, its heartbeat with it
--          0 something is pending for it: it counts as dead, and is gone from the other streams
--         -1 it lives, or has no heartbeat to tell

local group, consumer, silence = ARGV[1], ARGV[2], tonumber(ARGV[4])
local name = group .. ' ' .. consumer
local time = redis.call('TIME')
local dead_since = time[1] * 1000 + math.floor(time[2] / 1000) - silence
if ARGV[3] == 'dead' then
  local seen = redis.call('ZSCORE', KEYS[1], name)
  if not seen or tonumber(seen) > dead_since then
    return -1
  end
end
local is_held = false
for at = 2, #KEYS do
  local rows = redis.pcall('XPENDING', KEYS[at], group, '-', '+', 1, consumer)
  if rows.err then
    local code = string.match(rows.err, '^%S+')
    -- Where there is no such group, there is no such consumer.
    if code ~= 'NOGROUP' and code ~= 'WRONGTYPE' then
      return rows
    end
  elseif rows[1] then
    is_held = true
  else
    redis.call('XGROUP', 'DELCONSUMER', KEYS[at], group, consumer)
  end
end
if is_held then
  redis.call('ZADD', KEYS[1], 'XX', 'LT', string.format('%.0f', dead_since), name)
  return 0
end
redis.call('ZREM', KEYS[1], name)
return 1
