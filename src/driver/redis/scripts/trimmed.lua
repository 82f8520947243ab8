-- Counts what was trimmed before a group read it, right before it reads; see facts.lua.
--
-- KEYS[1]  the log
-- ARGV[1]  group
-- Returns  how many entries were trimmed unread since this was last counted

if redis.call('TYPE', KEYS[1])['ok'] ~= 'stream' then
  return 0
end
local own = look_at_group(KEYS[1], ARGV[1])
return own and count_trimmed(KEYS[1], ARGV[1], look_at_log(KEYS[1]), own) or 0
