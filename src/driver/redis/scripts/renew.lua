-- Renews the lease of entries that this consumer holds, each at the delivery count it was given.
--
-- A bare XCLAIM would take an entry back from whoever claimed it meanwhile.
--
-- KEYS[1]  the stream
-- ARGV[1]  group
-- ARGV[2]  consumer
-- ARGV[3]  and on, ascending: entry id, delivery count
-- Returns  per entry 1 (renewed) or 0 (lost)

local group, consumer = ARGV[1], ARGV[2]
local last = #ARGV - 1
local counts = {}
local rows = redis.pcall(
  'XPENDING', KEYS[1], group, ARGV[3], ARGV[last], (#ARGV - 2) / 2, consumer)
if not rows.err then
  for _, row in ipairs(rows) do
    counts[row[1]] = row[4]
  end
elseif string.sub(rows.err, 1, 7) ~= 'NOGROUP' then
  return rows
end

local answer, held = {}, {}
for at = 3, last, 2 do
  local id, count = ARGV[at], tonumber(ARGV[at + 1])
  if not counts[id] and not rows.err then
    -- The range may have held entries that were not asked for: ask for this one alone.
    local alone = redis.call('XPENDING', KEYS[1], group, id, id, 1, consumer)
    counts[id] = alone[1] and alone[1][4]
  end
  local own = counts[id] == count
  answer[#answer + 1] = own and 1 or 0
  if own then
    held[#held + 1] = id
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
  redis.call(unpack(claim))
end
return answer
