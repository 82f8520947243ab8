-- Appends the events of a batch that were not appended within the window, as one entry; nothing
-- where all of them were.
--
-- The entry comes first: a server that refuses it has written nothing, and one that took it takes
-- the marks as well, full memory or not.
--
-- KEYS[1]  the partition's log (stream)
-- KEYS[2]  and on: the events' marks (string ENTRY-ID/INDEX, where the event lies), one each
-- ARGV[1]  window in milliseconds
-- ARGV[2]  field of the envelopes
-- ARGV[3]  field of the publisher
-- ARGV[4]  the publisher, and which of its appends this is
-- ARGV[5]  1 where this append may have been done before, else 0
-- ARGV[6]  and on: envelopes, one each
-- Returns  per event: entry id, index, 1 where it was there before this append, else 0; the error
--          UNMARKED where the entry is stored and a mark is not

local function is_own(id)
  local entry = ARGV[5] == '1' and redis.call('XRANGE', KEYS[1], id, id)[1]
  local fields = entry and entry[2] or {}
  for at = 1, #fields, 2 do
    if fields[at] == ARGV[3] and fields[at + 1] == ARGV[4] then
      return true
    end
  end
  return false
end

local answer, batch, fresh, met = {}, {}, {}, {}
for at = 1, #KEYS - 1 do
  local key = KEYS[at + 1]
  local mark, id, index = redis.call('GET', key), nil, nil
  if mark then
    id, index = string.match(mark, '^(%d+%-%d+)/(%d+)$')
  end
  if not id and not fresh[key] then
    fresh[key] = #batch
    batch[#batch + 1] = ARGV[5 + at]
  end
  local was_there = met[key] or (id and not is_own(id))
  met[key] = true
  answer[3 * at - 2] = id or false
  answer[3 * at - 1] = index and tonumber(index) or fresh[key]
  answer[3 * at] = was_there and 1 or 0
end
if #batch > 0 then
  local id = redis.call('XADD', KEYS[1], '*', ARGV[2], table.concat(batch), ARGV[3], ARGV[4])
  local failed = nil
  for key, index in pairs(fresh) do
    local set = redis.pcall('SET', key, id .. '/' .. index, 'PX', ARGV[1])
    failed = failed or set.err
  end
  if failed then
    local text = 'UNMARKED the entry is stored, and a mark of it could not be: '
    return redis.error_reply(text .. failed)
  end
  for at = 1, #answer, 3 do
    answer[at] = answer[at] or id
  end
end
return answer
