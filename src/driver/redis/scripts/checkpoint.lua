-- Notes from where a group would have to go on if it vanished, and counts what it lost.
--
-- The note never moves back, except where the log's history is another one. A seek removes it.
--
-- KEYS[1]  the log
-- KEYS[2]  the group's checkpoint (hash: `safe`, the id after which it would go on; `last` and
--          `added`, the log's last id ever and number of entries ever, by which its history is
--          known again; `gone`, up to where pending entries that are gone were counted; `run`,
--          see facts.lua)
-- ARGV[1]  group
-- ARGV[2]  how many pending entries to count at most
-- ARGV[3]  the server's run id
-- Returns  {1 or 0 where the group is not there, last id, entries ever, length, first id or empty,
--          entries trimmed unread, pending entries that are gone, 1 where more of those are,
--          last id that the checkpoint knows and the log does not, or empty}

local group, most = ARGV[1], tonumber(ARGV[2])
local flaw = need(KEYS[1], 'stream') or need(KEYS[2], 'hash')
if flaw then
  return flaw
end
local log = look_at_log(KEYS[1])
local own = log.exists and look_at_group(KEYS[1], group)
if not own then
  return {0, log.last, log.added, log.length, log.first or '', 0, 0, 0, ''}
end
local known = redis.call('HMGET', KEYS[2], 'safe', 'last', 'added', 'gone')
local safe, last, added, counted = known[1], known[2], tonumber(known[3] or 0), known[4]
local lost = ''
if last and (is_before(log.last, last) or log.added < added) then
  redis.call('DEL', KEYS[2])
  safe, counted, lost = nil, nil, last
end

local trimmed = count_trimmed(KEYS[1], KEYS[2], ARGV[3], group, log, own)

-- Pending entries before the first one kept have no body any more.
local gone, more, here = 0, 0, own.delivered
if own.pending > 0 then
  local oldest = redis.call('XPENDING', KEYS[1], group)[2]
  here = previous(oldest)
  if not log.first or is_before(oldest, log.first) then
    local from, to = counted and '(' .. counted or '-', log.first and '(' .. log.first or '+'
    local rows = redis.call('XPENDING', KEYS[1], group, from, to, most)
    gone, more = #rows, #rows == most and 1 or 0
    if gone > 0 then
      redis.call('HSET', KEYS[2], 'gone', rows[gone][1])
    end
  end
end

if not safe or is_before(safe, here) then
  redis.call('HSET', KEYS[2], 'safe', here)
end
redis.call('HSET', KEYS[2], 'last', log.last, 'added', log.added)
return {1, log.last, log.added, log.length, log.first or '', trimmed, gone, more, lost}
