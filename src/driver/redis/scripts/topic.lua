-- Replaces what is written about a topic, where it is still what the caller read.
--
-- KEYS[1]  the topics (hash topic -> JSON)
-- ARGV[1]  topic
-- ARGV[2]  what the caller read, or empty for nothing
-- ARGV[3]  what is to stand there
-- Returns  1 done, 0 something else stands there

local found = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if found ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
