-- Makes a group on a partition where it is not there. A group that has a checkpoint has vanished:
-- it goes on there, or from the beginning where the log's history is another one. Never at the
-- end.
--
-- KEYS[1]  the log
-- KEYS[2]  the group's retry stream
-- KEYS[3]  the group's checkpoint
-- ARGV[1]  group
-- ARGV[2]  after which id a new group begins, or $ for the end
-- Returns  {1 made on the log or 0, 1 made on the retry stream or 0, 1 had a checkpoint or 0,
--          after which id it begins, and of the log as it was found: last id, entries ever, length,
--          first id or empty, last id that the checkpoint knows and the log does not, or empty}

local group, begin = ARGV[1], ARGV[2]
local flaw = need(KEYS[1], 'stream') or need(KEYS[2], 'stream') or need(KEYS[3], 'hash')
if flaw then
  return flaw
end
local log = look_at_log(KEYS[1])
local own = log.exists and look_at_group(KEYS[1], group)
local made, had, lost = 0, 0, ''
if not own then
  local known = redis.call('HMGET', KEYS[3], 'safe', 'last', 'added')
  if known[1] then
    had, begin = 1, known[1]
    if is_before(log.last, known[2]) or log.added < tonumber(known[3]) then
      begin, lost = '0-0', known[2]
      redis.call('DEL', KEYS[3])
    end
  elseif begin == '$' then
    begin = log.last
  end
  local create = {'XGROUP', 'CREATE', KEYS[1], group, begin, 'MKSTREAM'}
  -- What it has read of all entries ever, where that is certain: lag and losses are counted by it.
  local read = nil
  if not is_before(begin, log.last) then
    read = log.added
  elseif is_before(begin, log.first or log.last) then
    read = log.added - log.length
  end
  if read then
    create[#create + 1] = 'ENTRIESREAD'
    create[#create + 1] = read
  end
  redis.call(unpack(create))
  made = 1
end

local retry = 0
if redis.call('EXISTS', KEYS[2]) == 0 or not look_at_group(KEYS[2], group) then
  redis.call('XGROUP', 'CREATE', KEYS[2], group, '0', 'MKSTREAM')
  retry = 1
end
return {made, retry, had, begin, log.last, log.added, log.length, log.first or '', lost}
