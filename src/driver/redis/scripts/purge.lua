-- Deletes dead letters. The next event of a key that one of them parked is run.
--
-- KEYS[1]  the group's dead letters
-- KEYS[2]  the group's retry stream
-- KEYS[3]  the group's parking (see settle.lua)
-- KEYS[4]  the group's parked events
-- ARGV[1]  field of a retry record
-- ARGV[2]  field of a letter that parks its key
-- ARGV[3]  `ids`, and then ids; or `until`, the last id to delete, and how many at most
-- Returns  how many were deleted

local DEAD, RETRY, PARKING, WAITING = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local RECORD, PARKED = ARGV[1], ARGV[2]

-- What holds the later events of a key back: the origins of its dead letters, and of those that are
-- run after having been one or having waited for one. Nobody is parked whom none of them precedes.
local function holders(key, without)
  local found, least, had = {}, nil, false
  for origin in string.gmatch(redis.call('HGET', PARKING, key) or '', '%S+') do
    if origin == without then
      had = true
    else
      found[#found + 1] = origin
      least = (not least or origin < least) and origin or least
    end
  end
  return found, least, had
end

local function hold(key, found)
  if #found == 0 then
    redis.call('HDEL', PARKING, key)
  else
    redis.call('HSET', PARKING, key, table.concat(found, ' '))
  end
end

-- The event does not hold the key any more: the next one that waits is run, and holds it.
local function release(key, origin)
  local found, least, had = holders(key, origin)
  if not had then
    return
  end
  local next = redis.call(
    'ZRANGEBYLEX', WAITING, '[' .. key .. '/', '(' .. key .. '0', 'LIMIT', 0, 1)
  local waiting = next[1] and string.sub(next[1], 34, 85)
  if waiting and (not least or waiting < least) then
    redis.call('ZREM', WAITING, next[1])
    redis.call('XADD', RETRY, '*', RECORD, string.sub(next[1], 87))
    found[#found + 1] = waiting
  end
  hold(key, found)
end

local rows = {}
if ARGV[3] == 'until' then
  rows = redis.call('XRANGE', DEAD, '-', ARGV[4], 'COUNT', ARGV[5])
else
  for at = 4, #ARGV do
    rows[#rows + 1] = redis.call('XRANGE', DEAD, ARGV[at], ARGV[at])[1]
  end
end
local deleted = 0
for _, row in ipairs(rows) do
  deleted = deleted + redis.call('XDEL', DEAD, row[1])
  for at = 1, #row[2], 2 do
    if row[2][at] == PARKED then
      local place = row[2][at + 1]
      release(string.sub(place, 1, 32), string.sub(place, 34))
    end
  end
end
return deleted
