-- Counts what was trimmed before a group read it, right before it reads; see facts.lua.
--
-- KEYS[1]  the log
-- KEYS[2]  the group's checkpoint
-- ARGV[1]  group
-- ARGV[2]  the server's run id
-- ARGV[3]  1 where the last read brought all it asked for, so that the group is hardly at the end
-- Returns  how many entries were trimmed unread since this was last counted

if redis.call('TYPE', KEYS[1])['ok'] ~= 'stream' then
  return 0
end
local own = look_at_group(KEYS[1], ARGV[1])
if not own or need(KEYS[2], 'hash') then
  return 0
end
-- Where entries were trimmed unread, all that are left are unread: the lag is as many, or as many
-- and those that are gone, as servers differ. Where it is less, the log does not have to be looked
-- at, which costs as much as its first and its last entry are large. A group at the end can have
-- missed some even so.
local is_whole = ARGV[3] == '1' and own.read and own.lag and own.lag < redis.call('XLEN', KEYS[1])
if is_whole and redis.call('HGET', KEYS[2], 'run') == ARGV[2] then
  return 0
end
return count_trimmed(KEYS[1], KEYS[2], ARGV[2], ARGV[1], look_at_log(KEYS[1]), own)
