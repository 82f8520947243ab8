-- What a log and a group on it say of themselves. Put before the scripts that need it.

local function named(row)
  local facts = {}
  for at = 1, #row, 2 do
    facts[row[at]] = row[at + 1]
  end
  return facts
end

-- Ids are compared as texts: their parts are 64 bits wide, and a Lua number is not.
local function is_less(one, other)
  if #one ~= #other then
    return #one < #other
  end
  return one < other
end

local function is_before(one, other)
  local millis, seq = string.match(one, '(%d+)-(%d+)')
  local others, other_seq = string.match(other, '(%d+)-(%d+)')
  if millis ~= others then
    return is_less(millis, others)
  end
  return is_less(seq, other_seq)
end

-- One less, of a text of digits that is not 0.
local function decrement(digits)
  local head, tail, zeros = string.match(digits, '^(%d-)([1-9])(0*)$')
  local less = head .. tostring(tonumber(tail) - 1) .. string.rep('9', #zeros)
  return (string.gsub(less, '^0+(%d)', '%1'))
end

-- The id right before this one.
local function previous(id)
  local millis, seq = string.match(id, '(%d+)-(%d+)')
  if seq ~= '0' then
    return millis .. '-' .. decrement(seq)
  elseif millis ~= '0' then
    return decrement(millis) .. '-18446744073709551615'
  end
  return id
end

-- An error where the key is neither absent nor of this type.
local function need(key, wanted)
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'none' and kind ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', no ' .. wanted)
  end
end

-- As `need`, of a stream that is to take another entry.
local LAST_ID = '18446744073709551615-18446744073709551615'
local function need_room(key)
  local flaw = need(key, 'stream')
  if not flaw and redis.call('EXISTS', key) == 1 then
    if named(redis.call('XINFO', 'STREAM', key))['last-generated-id'] == LAST_ID then
      return redis.error_reply('ERR ' .. key .. ' takes no entry after the last id that there is')
    end
  end
  return flaw
end

-- A log: its last id ever, how many entries it ever had and has, the first that it has. One that
-- is not there never had any.
local function look_at_log(key)
  if redis.call('EXISTS', key) == 0 then
    return {last = '0-0', added = 0, length = 0}
  end
  local facts = named(redis.call('XINFO', 'STREAM', key))
  local log = {last = facts['last-generated-id'], added = facts['entries-added']}
  log.length, log.first = facts['length'], facts['first-entry'] and facts['first-entry'][1]
  log.exists = true
  return log
end

-- A group on a log, or nothing. `read` is how many of all entries ever it has read, where the
-- server knows, and `lag` how many it has not.
local function look_at_group(key, group)
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local facts = named(row)
    if facts['name'] == group then
      local own = {delivered = facts['last-delivered-id'], pending = facts['pending']}
      own.read, own.lag = facts['entries-read'] or nil, facts['lag'] or nil
      return own
    end
  end
end

local function is_consumer_known(key, group, consumer)
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
    if named(row)['name'] == consumer then
      return true
    end
  end
  return false
end

-- Counts what was trimmed before the group read it. It counts as read from then on, for all
-- members, so nobody counts it again.
--
-- A group that is before the first entry kept should have read all that are gone; one that is at
-- the end, all that there ever were. Some servers count on after a trim as if nothing had been
-- missed, which the second finds.
--
-- A server that restarts with its append-only file, and a replica that takes over, have an older
-- count of what was read. So the checkpoint notes in which life of the server it was made right;
-- in a new one it is made right, and nothing is said.
local function count_trimmed(key, checkpoint, run, group, log, own)
  local due = nil
  if own.delivered == log.last then
    due = log.added
  elseif is_before(own.delivered, log.first or log.last) then
    due = log.added - log.length
  end
  local noted = redis.call('HGET', checkpoint, 'run')
  if noted ~= run then
    -- Where memory is full, it is noted later.
    redis.pcall('HSET', checkpoint, 'run', run)
  end
  if noted and noted ~= run then
    if due then
      redis.call('XGROUP', 'SETID', key, group, own.delivered, 'ENTRIESREAD', due)
    elseif own.read then
      redis.call('XGROUP', 'SETID', key, group, own.delivered)
    end
    return 0
  end
  if not due or (own.read and own.read >= due) then
    return 0
  end
  redis.call('XGROUP', 'SETID', key, group, own.delivered, 'ENTRIESREAD', due)
  -- A group that was made or moved among the entries is not known to have missed any.
  return own.read and due - own.read or 0
end
