-- Takes the turn to trim a partition, where nobody has it.
--
-- DEL comes before SET: under full memory, when trimming is needed most, SET alone is refused,
-- while a script that has written may go on writing. A turn always ends: what stands there without
-- an expiry is nobody's.
--
-- KEYS[1]  who trims (string, expires)
-- ARGV[1]  who asks          ARGV[2]  for how many milliseconds
-- Returns  1 where the turn was taken, else 0

if redis.call('PTTL', KEYS[1]) >= 0 then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
