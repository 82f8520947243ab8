-- Notes that a suspect is about to run, and tells how often it was found running.
--
-- A note that another delivery count left was left by a consumer that died, or was taken for dead,
-- while the suspect ran. The note goes with the end of the delivery; see settle.lua.
--
-- KEYS[1]  the group's retry stream
-- KEYS[2]  the group's running suspects (hash entry id -> FOUND:COUNT: how often those who took
--          it over found it running, and the delivery count at which it was begun last)
-- ARGV[1]  group
-- ARGV[2]  consumer
-- ARGV[3]  entry id
-- ARGV[4]  delivery count
-- Returns  how often it was found running, -1 where another consumer holds it, or -2 where it is
--          pending for nobody: its consumer was deleted, and may take it back

local group, consumer, id, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local rows = redis.pcall('XPENDING', KEYS[1], group, id, id, 1, consumer)
if rows.err then
  return string.sub(rows.err, 1, 7) == 'NOGROUP' and -1 or rows
end
if not rows[1] and not redis.call('XPENDING', KEYS[1], group, id, id, 1)[1] then
  return -2
end
if not rows[1] or rows[1][4] ~= tonumber(count) then
  return -1
end
local found, before = 0, nil
local note = redis.call('HGET', KEYS[2], id)
if note then
  found, before = string.match(note, '^(%d+):(%d+)$')
  found = tonumber(found) or 0
  if before == count then
    return found
  end
  found = found + 1
end
-- It is allowed under full memory, and a script that has written may go on writing.
redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'IDLE', 0, 'JUSTID')
redis.call('HSET', KEYS[2], id, string.format('%d:%s', found, count))
return found
