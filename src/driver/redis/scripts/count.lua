-- Counts entries of a stream without sending them.
--
-- KEYS[1]  the stream
-- ARGV[1]  the id after which to count
-- ARGV[2]  the last id that counts
-- ARGV[3]  how many at most
-- Returns  {how many, the id of the last one or empty}

local rows = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], ARGV[2], 'COUNT', ARGV[3])
return {#rows, #rows > 0 and rows[#rows][1] or ''}
