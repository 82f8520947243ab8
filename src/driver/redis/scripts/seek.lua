-- Moves a group on a log, and drops what must not be pending any more.
--
-- The move comes first: whoever fails after it leaves entries that are pending and unread, which
-- are read again as any other, and never a gap.
--
-- KEYS[1]  the log
-- KEYS[2]  the group's progress (hash by entry id)
-- KEYS[3]  the group's checkpoint, which holds no longer
-- ARGV[1]  group
-- ARGV[2]  where the group is expected to be, or empty for anywhere
-- ARGV[3]  the entry after which it is to go on
-- ARGV[4]  "back", "forward" or "none": what to drop where the group is there already
-- ARGV[5]  "move", or "rest" to go on dropping after a move
-- ARGV[6]  how many pending entries to drop at most
-- Returns  {"moved", where it was, its direction, how many were dropped, 1 where more are left},
--          or {"elsewhere", where it is}

local group, expected, target, direction, act = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local wrong = need(KEYS[2], 'hash') or need(KEYS[3], 'hash')
if wrong then
  return wrong
end

local function position()
  local own = redis.call('EXISTS', KEYS[1]) == 1 and look_at_group(KEYS[1], group)
  if own then
    return own.delivered
  end
  return nil, redis.error_reply('NOGROUP group ' .. group .. ' is not on ' .. KEYS[1])
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
    redis.call('HDEL', KEYS[3], 'safe', 'last', 'added')
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
