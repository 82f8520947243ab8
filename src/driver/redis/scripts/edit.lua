-- Puts a dead letter in the place of another, as the last one.
--
-- XDEL comes before XADD: it is allowed under full memory and lets the rest of the script pass,
-- and a letter that was redriven, purged or edited meanwhile is not brought back.
--
-- KEYS[1]  the group's dead letters
-- ARGV[1]  id of the letter that goes
-- ARGV[2]  and on: the fields and values of the one that comes
-- Returns  its id, or nothing where the other is not there

if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return false
end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
