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

local DEAD, PARKED = KEYS[1], ARGV[2]
RETRY, PARKING, WAITING, RECORD = KEYS[2], KEYS[3], KEYS[4], ARGV[1]

local refused = forbidden('XADD', RETRY, '*', RECORD, '') or forbidden('ZREM', WAITING, '')
if refused then
  return refused
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
