-- Registers what one member of a group can route, and says that it lives.
--
-- A pattern counts for 24 hours after the last member that has it was seen. Of two versions the
-- newer one stands; the older one takes its place when the newer was not seen for that long.
--
-- KEYS[1]  the group's routes (hash pattern -> {"version":n|null,"seen":ms}, field ~epoch)
-- ARGV     pattern, newest version it decodes or empty for any; and so on
-- Returns  {epoch, milliseconds of the server's clock}

local KEPT = 24 * 60 * 60 * 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = false
for at = 1, #ARGV, 2 do
  local pattern, own = ARGV[at], tonumber(ARGV[at + 1])
  local raw = redis.call('HGET', KEYS[1], pattern)
  local live, version = false, nil
  if raw then
    local ok, known = pcall(cjson.decode, raw)
    if ok and type(known) == 'table' then
      live = now - (tonumber(known.seen) or 0) < KEPT
      version = tonumber(known.version)
    end
  end
  local newer = live and own and (not version or version > own)
  if not newer then
    changed = changed or not live or version ~= own
    local shown = own and ARGV[at + 1] or 'null'
    local seen = string.format('%.0f', now)
    redis.call('HSET', KEYS[1], pattern, '{"version":' .. shown .. ',"seen":' .. seen .. '}')
  end
end
if changed then
  redis.call('HINCRBY', KEYS[1], '~epoch', 1)
end
return {tonumber(redis.call('HGET', KEYS[1], '~epoch') or 0), now}
