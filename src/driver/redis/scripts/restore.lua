-- Adds dead letters that were exported, where no other came since the caller looked.
--
-- KEYS[1]  the group's dead letters
-- KEYS[2]  the partition's log
-- ARGV[1]  the group
-- ARGV[2]  id of the last letter that the caller knows
-- ARGV[3]  field of a description
-- ARGV[4]  and on: per letter the field of what died, its value, the description
-- Returns  the id of the last letter added; nothing where there are letters after the known one;
--          0 where the group does not read the partition

local groups = redis.pcall('XINFO', 'GROUPS', KEYS[2])
local known = false
for _, group in ipairs(groups.err and {} or groups) do
  known = known or group[2] == ARGV[1]
end
if not known then
  return 0
end
if #redis.call('XRANGE', KEYS[1], '(' .. ARGV[2], '+', 'COUNT', 1) > 0 then
  return false
end
local last = ARGV[2]
for at = 4, #ARGV, 3 do
  last = redis.call('XADD', KEYS[1], '*', ARGV[at], ARGV[at + 1], ARGV[3], ARGV[at + 2])
end
return last
