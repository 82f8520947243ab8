-- Renews the lease of entries that this consumer holds, each at the delivery count it was given.
--
-- A bare XCLAIM would take an entry back from whoever claimed it meanwhile.
--
-- An entry that is pending for nobody was settled, or its consumer was deleted by a stranger. The
-- caller knows: it may ask for it back, and answers for that nothing was said about its end and
-- that the lease did not lapse. Of what was handed out before, the first holder may have
-- acknowledged the whole; that is taken back only where the consumer was deleted for sure.
--
-- KEYS[1]  the stream
-- ARGV[1]  group
-- ARGV[2]  consumer
-- ARGV[3]  1 to take back what is pending for nobody, else 0
-- ARGV[4]  and on, ascending: entry id, delivery count
-- Returns  per entry 1 renewed, 0 lost, 2 pending for nobody, 3 taken back, 4 its message is gone,
--          5 the group will hand it out anew: it was made again or moved back, or is not there

local group, consumer, may_take = ARGV[1], ARGV[2], ARGV[3] == '1'
local LOST, RENEWED, VANISHED, TAKEN, GONE, WAITS = 0, 1, 2, 3, 4, 5
local FIRST = 4
local last = #ARGV - 1
local counts = {}
local rows = redis.pcall(
  'XPENDING', KEYS[1], group, ARGV[FIRST], ARGV[last], (#ARGV - FIRST + 1) / 2, consumer)
if not rows.err then
  for _, row in ipairs(rows) do
    counts[row[1]] = row[4]
  end
elseif string.sub(rows.err, 1, 7) ~= 'NOGROUP' then
  return rows
end

local answer, held, vanished = {}, {}, {}
local was_deleted, own = false, nil
for at = FIRST, last, 2 do
  local id, count = ARGV[at], tonumber(ARGV[at + 1])
  local code = rows.err and WAITS or LOST
  if not counts[id] and not rows.err then
    -- The range may have held entries that were not asked for: ask for this one alone.
    local alone = redis.call('XPENDING', KEYS[1], group, id, id, 1)[1]
    own = own or look_at_group(KEYS[1], group)
    if not alone and is_before(own.delivered, id) then
      code = WAITS
    elseif not alone then
      code = VANISHED
      was_deleted = was_deleted or count == 1
      vanished[#vanished + 1] = {place = #answer + 1, id = id, count = count}
    elseif alone[2] == consumer then
      counts[id] = alone[4]
    end
  end
  if counts[id] == count then
    code = RENEWED
    held[#held + 1] = id
  end
  answer[#answer + 1] = code
end
if may_take and #vanished > 0 then
  was_deleted = was_deleted or not is_consumer_known(KEYS[1], group, consumer)
  for _, entry in ipairs(vanished) do
    local id = entry.id
    if not was_deleted then
      answer[entry.place] = LOST
    elseif #redis.call('XRANGE', KEYS[1], id, id) == 0 then
      answer[entry.place] = GONE
    else
      redis.call('XCLAIM', KEYS[1], group, consumer, 0, id,
        'IDLE', 0, 'RETRYCOUNT', entry.count, 'FORCE', 'JUSTID')
      answer[entry.place] = TAKEN
    end
  end
end
if #held > 0 then
  local claim = {'XCLAIM', KEYS[1], group, consumer, 0}
  for _, id in ipairs(held) do
    claim[#claim + 1] = id
  end
  claim[#claim + 1] = 'IDLE'
  claim[#claim + 1] = 0
  claim[#claim + 1] = 'JUSTID'
  -- The server takes off the books what was deleted from the stream, and leaves it out.
  local there = {}
  for _, id in ipairs(redis.call(unpack(claim))) do
    there[id] = true
  end
  for place, code in ipairs(answer) do
    if code == RENEWED and not there[ARGV[FIRST + (place - 1) * 2]] then
      answer[place] = GONE
    end
  end
end
return answer
