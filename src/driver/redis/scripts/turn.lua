-- Takes the turn to trim a partition, where nobody has it, and tells what was dropped so far.
--
-- DEL comes before SET: under full memory, when trimming is needed most, SET alone is refused,
-- while a script that has written may go on writing.
--
-- KEYS[1]  who trims (string, expires)
-- KEYS[2]  what was dropped (hash group -> entries)
-- ARGV[1]  who asks          ARGV[2]  for how many milliseconds
-- Returns  {1 where the turn was taken, else 0, group, entries, and so on}

local answer = {0}
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  answer[1] = 1
end
for _, part in ipairs(redis.call('HGETALL', KEYS[2])) do
  answer[#answer + 1] = part
end
return answer
