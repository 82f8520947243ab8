-- Moves a group on a log, and drops what must not be pending any more.
--
-- The move comes first: whoever fails after it leaves entries that are pending and unread, which
-- are read again as any other, and never a gap.
--
-- KEYS[1]  the log
-- KEYS[2]  the group's progress (hash by entry id)
-- ARGV[1]  group
-- ARGV[2]  where the group is expected to be, or empty for anywhere
-- ARGV[3]  the entry after which it is to go on
-- ARGV[4]  "back", "forward" or "none": what to drop where the group is there already
-- ARGV[5]  "move", or "rest" to go on dropping after a move
-- ARGV[6]  how many pending entries to drop at most
-- Returns  {"moved", where it was, its direction, how many were dropped, 1 where more are left},
--          or {"elsewhere", where it is}

local group, expected, target, direction, act = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local kind = redis.call('TYPE', KEYS[2])['ok']
if kind ~= 'none' and kind ~= 'hash' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', no hash')
end

local function position()
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
  if groups.err then
    return nil, groups
  end
  for _, row in ipairs(groups) do
    local facts = {}
    for at = 1, #row, 2 do
      facts[row[at]] = row[at + 1]
    end
    if facts['name'] == group then
      return facts['last-delivered-id']
    end
  end
  return nil, redis.error_reply('NOGROUP group ' .. group .. ' is not on ' .. KEYS[1])
end

-- Ids are compared as texts: their parts are 64 bits wide, and a Lua number is not.
local function is_less(one, other)
  if #one ~= #other then
    return #one < #other
  end
  return one < other
end

local function is_before(one, other)
  local millis, seq = string.match(one, '(%d+)-(%d+)')
  local others, other_seq = string.match(other, '(%d+)-(%d+)')
  if millis ~= others then
    return is_less(millis, others)
  end
  return is_less(seq, other_seq)
end

local from, flaw = position()
if flaw then
  return flaw
end
if act == 'move' then
  if expected ~= '' and from ~= expected and from ~= target then
    return {'elsewhere', from}
  end
  if from ~= target then
    direction = is_before(target, from) and 'back' or 'forward'
    redis.call('XGROUP', 'SETID', KEYS[1], group, target)
  end
end

if direction == 'none' then
  return {'moved', from, direction, 0, 0}
end

-- After a move back, what is pending beyond the group's position is unread again. A consumer that
-- reads meanwhile moves the position, and keeps what it holds.
local first, last = '-', target
if direction == 'back' then
  first, last = '(' .. (act == 'move' and target or from), '+'
end
local rows = redis.call('XPENDING', KEYS[1], group, first, last, ARGV[6])
local ids = {}
for _, row in ipairs(rows) do
  ids[#ids + 1] = row[1]
end
if #ids > 0 then
  redis.call('XACK', KEYS[1], group, unpack(ids))
  redis.call('HDEL', KEYS[2], unpack(ids))
end
return {'moved', from, direction, #ids, #ids == tonumber(ARGV[6]) and 1 or 0}
