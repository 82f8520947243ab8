-- One bounded step of trimming a log: first what all groups have settled, then, above the cap,
-- the oldest, read or not. What a group loses is counted.
--
-- All that is decided here is read here: no group can move between the look and the trim.
--
-- KEYS[1]  the log            KEYS[2]  who trims            KEYS[3]  what was dropped
-- ARGV[1]  whose turn it is
-- ARGV[2]  how long settled entries are kept, in milliseconds
-- ARGV[3]  bytes of a log beyond which settled entries go
-- ARGV[4]  bytes of a log beyond which the oldest go
-- ARGV[5]  and on: groups that no longer hold anything
-- Returns  {1 done or 0 not our turn, entries trimmed, 1 where more is due, group, entries that it
--           lost, and so on}

-- What is freed in one step: a few milliseconds of the server's time at most. Entries whose loss
-- is counted are read as well, which costs more.
local STEP_ENTRIES, STEP_BYTES = 10000, 16 * 1024 * 1024
local COUNTED_ENTRIES, COUNTED_BYTES = 500, 512 * 1024
-- Entries at each end by which the bytes are estimated, and what an entry costs beside its text.
local SAMPLES, ENTRY_BYTES = 3, 16
-- Ids this far ahead of the clock were made by one that jumped: they say nothing about age.
local AHEAD_MS = 5000

local LOG, DROPPED = KEYS[1], KEYS[3]
local keep_ms, keep_bytes, cap_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return {0, 0, 0}
end

-- The id after this one; the same one where that would need more digits than a number has.
local function after(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if #seq > 15 then
    return id
  end
  return ms .. '-' .. string.format('%.0f', seq + 1)
end

local length = redis.call('XLEN', LOG)
if length == 0 then
  return {1, 0, 0}
end
local newest = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', SAMPLES)
local oldest = redis.call('XRANGE', LOG, '-', '+', 'COUNT', SAMPLES)

local function text_bytes(rows)
  local bytes = 0
  for _, row in ipairs(rows) do
    bytes = bytes + ENTRY_BYTES
    for _, part in ipairs(row[2]) do
      bytes = bytes + #part
    end
  end
  return bytes
end
local entry_bytes = (text_bytes(newest) + text_bytes(oldest)) / (#newest + #oldest)

-- What each group still needs: from its oldest pending entry on, else from what it has not read.
local gone = {}
for at = 5, #ARGV do
  gone[ARGV[at]] = true
end
local groups, floor, first_needed = {}, nil, nil
for _, row in ipairs(redis.call('XINFO', 'GROUPS', LOG)) do
  local facts = named(row)
  local group = {name = facts['name'], read = facts['last-delivered-id']}
  group.pending, group.needs = facts['pending'], after(group.read)
  if group.pending > 0 then
    local first = redis.call('XPENDING', LOG, group.name, '-', '+', 1)[1]
    if first and is_before(first[1], group.needs) then
      group.needs = first[1]
    end
  end
  if not gone[group.name] and (not floor or is_before(group.needs, floor)) then
    floor = group.needs
  end
  if not first_needed or is_before(group.needs, first_needed) then
    first_needed = group.needs
  end
  groups[#groups + 1] = group
end
floor = floor or after(newest[1][1])

local trimmed, more, lost = 0, 0, {}

-- What is pending for a group among these ids. What it has not read counts elsewhere.
local function count_pending(group, ids, first, last)
  local count, from = 0, first
  while group.pending > 0 do
    local rows = redis.call('XPENDING', LOG, group.name, from, last, COUNTED_ENTRIES)
    for _, row in ipairs(rows) do
      if ids[row[1]] and not is_before(group.read, row[1]) then
        count = count + 1
      end
    end
    if #rows < COUNTED_ENTRIES then
      break
    end
    from = '(' .. rows[#rows][1]
  end
  return count
end

-- Drops the oldest entries before `limit`, exactly, and counts what each group loses by it.
local function drop(limit, most)
  local count = math.min(most, COUNTED_ENTRIES, math.floor(COUNTED_BYTES / entry_bytes))
  count = math.max(count, 1)
  local rows = redis.call('XRANGE', LOG, '-', limit, 'COUNT', count)
  if #rows == 0 then
    return
  end
  local ids = {}
  for _, row in ipairs(rows) do
    ids[row[1]] = true
  end
  local losses = {}
  for _, group in ipairs(groups) do
    local loss = count_pending(group, ids, rows[1][1], rows[#rows][1])
    for at = #rows, 1, -1 do
      if not is_before(group.read, rows[at][1]) then
        break
      end
      loss = loss + 1
    end
    losses[group.name] = loss
  end
  local cut = redis.call('XTRIM', LOG, 'MAXLEN', '=', length - #rows)
  trimmed, length = trimmed + cut, length - cut
  for _, group in ipairs(groups) do
    local loss = losses[group.name]
    if loss > 0 then
      redis.call('HINCRBY', DROPPED, group.name, loss)
      lost[group.name] = (lost[group.name] or 0) + loss
    end
  end
  if #rows == count and count < most then
    more = 1
  end
end

-- Drops entries before `limit`, which no group holds, in whole nodes of the stream.
local function drop_settled(limit, most)
  if not is_before(oldest[1][1], limit) then
    return
  end
  if first_needed and is_before(first_needed, limit) then
    -- A group that is gone loses by it.
    return drop('(' .. limit, most)
  end
  local count = math.min(most, STEP_ENTRIES, math.floor(STEP_BYTES / entry_bytes))
  local cut = redis.call('XTRIM', LOG, 'MINID', '~', limit, 'LIMIT', math.max(count, 1))
  trimmed, length = trimmed + cut, length - cut
  if count < most and cut * 2 >= count then
    more = 1
  end
end

local function excess(limit_bytes)
  return math.ceil((length * entry_bytes - limit_bytes) / entry_bytes)
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last_ms = tonumber(string.match(newest[1][1], '^%d+'))
if last_ms <= now + AHEAD_MS and now > keep_ms then
  local old = string.format('%.0f-0', now - keep_ms)
  drop_settled(is_before(old, floor) and old or floor, length)
end
if trimmed == 0 and excess(keep_bytes) > 0 then
  drop_settled(floor, excess(keep_bytes))
end
if trimmed == 0 and excess(cap_bytes) > 0 then
  drop('+', excess(cap_bytes))
elseif trimmed > 0 and excess(math.min(keep_bytes, cap_bytes)) > 0 then
  more = 1
end

local answer = {1, trimmed, more}
for name, loss in pairs(lost) do
  answer[#answer + 1] = name
  answer[#answer + 1] = loss
end
return answer
