-- After the server's clock went back: entries that were handed out in what is the future now are
-- idle from now on. Until then they would not count as idle, and nobody could take them over.
--
-- KEYS[1]  the stream
-- ARGV[1]  group
-- ARGV[2]  from where on: an id, "(" and an id, or "-"
-- ARGV[3]  how many entries to look at
-- Returns  the last id that was looked at, or nil at the end

local rows = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3])
if rows.err then
  return string.sub(rows.err, 1, 7) == 'NOGROUP' and false or rows
end
for _, row in ipairs(rows) do
  local id, owner, idle = row[1], row[2], row[3]
  -- Of one that was renewed this very millisecond nothing changes.
  if idle == 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], owner, 0, id, 'IDLE', 0, 'JUSTID')
  end
end
return #rows > 0 and rows[#rows][1]
