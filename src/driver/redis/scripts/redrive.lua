-- Gives dead letters to their group again.
--
-- XDEL comes before XADD: it is allowed under full memory and lets the rest of the script pass,
-- and a letter that is gone is not moved twice.
--
-- KEYS[1]  the group's dead letters
-- KEYS[2]  the group's retry stream
-- ARGV[1]  the field that holds a retry record
-- ARGV[2]  and on: id of the letter, retry record
-- Returns  how many were moved; the others are not there

local kind = redis.call('TYPE', KEYS[2])['ok']
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', no stream')
end
local refused = forbidden('XADD', KEYS[2], '*', ARGV[1], '')
if refused then
  return refused
end
local moved = 0
for at = 2, #ARGV, 2 do
  if redis.call('XDEL', KEYS[1], ARGV[at]) == 1 then
    redis.call('XADD', KEYS[2], '*', ARGV[1], ARGV[at + 1])
    moved = moved + 1
  end
end
return moved
