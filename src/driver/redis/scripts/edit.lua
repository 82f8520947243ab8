-- Puts a dead letter in the place of another, as the last one.
--
-- XDEL comes before XADD: it is allowed under full memory and lets the rest of the script pass,
-- and a letter that was redriven, purged or edited meanwhile is not brought back.
--
-- KEYS[1]  the group's dead letters
-- ARGV[1]  id of the letter that goes
-- ARGV[2]  field of a letter that parks its key: it is kept
-- ARGV[3]  and on: the fields and values of the one that comes
-- Returns  its id, or nothing where the other is not there

local row = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not row then
  return false
end
local letter = {unpack(ARGV, 3)}
for at = 1, #row[2], 2 do
  if row[2][at] == ARGV[2] then
    letter[#letter + 1], letter[#letter + 2] = row[2][at], row[2][at + 1]
  end
end
local refused = forbidden('XADD', KEYS[1], '*', unpack(letter))
if refused then
  return refused
end
redis.call('XDEL', KEYS[1], ARGV[1])
return redis.call('XADD', KEYS[1], '*', unpack(letter))
