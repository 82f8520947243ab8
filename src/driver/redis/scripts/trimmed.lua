-- Counts what was trimmed before a group read it, right before it reads; see facts.lua.
--
-- KEYS[1]  the log
-- KEYS[2]  the group's checkpoint
-- ARGV[1]  group
-- ARGV[2]  the server's run id
-- Returns  how many entries were trimmed unread since this was last counted

if redis.call('TYPE', KEYS[1])['ok'] ~= 'stream' then
  return 0
end
local own = look_at_group(KEYS[1], ARGV[1])
if not own or need(KEYS[2], 'hash') then
  return 0
end
return count_trimmed(KEYS[1], KEYS[2], ARGV[2], ARGV[1], look_at_log(KEYS[1]), own)
