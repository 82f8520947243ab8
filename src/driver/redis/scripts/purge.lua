-- Deletes the oldest entries of a stream, exactly up to an id.
--
-- KEYS[1]  the stream
-- ARGV[1]  the last id to delete
-- ARGV[2]  how many at most
-- Returns  how many were deleted

local ids = {}
for _, row in ipairs(redis.call('XRANGE', KEYS[1], '-', ARGV[1], 'COUNT', ARGV[2])) do
  ids[#ids + 1] = row[1]
end
if #ids == 0 then
  return 0
end
return redis.call('XDEL', KEYS[1], unpack(ids))
