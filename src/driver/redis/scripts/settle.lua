-- Ends deliveries: everything that is said about one entry is one step, and only its holder's.
--
-- The order matters. The fence reads, then XCLAIM renews: it is allowed under full memory, and a
-- script that has written may go on writing. What ends the delivery comes last, so that nothing
-- is lost where something before it fails.
--
-- KEYS[1]  the stream that the entries are from: the log or the group's retry stream
-- KEYS[2]  the group's retry stream
-- KEYS[3]  the group's due set
-- KEYS[4]  the group's dead letters
-- KEYS[5]  the group's progress (hash entry id -> bitmap: event i is bit i % 8 of byte i / 8)
-- KEYS[6]  the group's running suspects (hash entry id of the retry stream -> note)
-- KEYS[7]  the group's parking (hash key's hash -> origins that hold its later events back)
-- KEYS[8]  the group's parked events (sorted set of key's hash / origin / retry record)
-- KEYS[9]  where something is handled once, the group's handled events (sorted set event id ->
--          until when it is known)
-- KEYS[9], there KEYS[10], and on: logs that outputs go to
-- ARGV[1]  group
-- ARGV[2]  consumer
-- ARGV[3]  field of an envelope batch       ARGV[4]  field of the appender
-- ARGV[5]  field of a retry record          ARGV[6]  field of a dead letter's description
-- ARGV[7]  appender of the outputs; the entry id is added to it
-- ARGV[8]  field of a dead letter that parks its key
-- ARGV[9]  1 where something is handled once, else 0
-- ARGV[10] number of entries; then, ascending by id, per entry:
--   id, delivery count, how sure the caller is, number of events in it, number of items; per item:
--     index, then one of
--     "a", number of outputs, per output: number of its log, from 1, envelope
--     "o", milliseconds, event id, and as after "a"  (handled once: known by its id for so long)
--     "n", delay in milliseconds, retry record       (another attempt, or another consumer)
--     "d", field, its value, description             (dead letter)
--     "A", "O", "D": as in small letters, in a group that parks keys: first key's hash, origin
--     "P", key's hash, origin, retry record          (parked, or run again where nothing holds it)
--   Sure: 0 not, 1 nothing was said about its end and the lease did not lapse, 2 and its message
--   is known to be deleted. Then an entry that is pending for nobody was not settled: a stranger
--   deleted the consumer, and it is taken back. With 1, of what was handed out before, the first
--   holder may have acknowledged the whole: only where the consumer is gone.
-- Returns  per entry: 1 where nothing of it is left to this consumer, else 0, and 2 more where it
--          was taken back, 4 more where its message is found to be deleted and a part of it is
--          left; then per item 1 done, 2 settled before, 3 lease lost, 4 done without its outputs,
--          as its id was known

local group, consumer = ARGV[1], ARGV[2]
local BATCH, APPENDER, DESCRIPTION, PARKED = ARGV[3], ARGV[4], ARGV[6], ARGV[8]
local DONE, ALREADY, LOST, REPEATED = 1, 2, 3, 4
local is_once = ARGV[9] == '1'
local HANDLED, FIRST_LOG, FORGOTTEN_MAX = KEYS[9], is_once and 10 or 9, 2000
-- Of one entry of outputs, and of the values that a function of Lua takes or gives.
local OUTPUTS_MAX, OUTPUT_BYTES_MAX, SLICE = 1000, 1048576, 1000
RETRY, PARKING, WAITING, RECORD = KEYS[2], KEYS[7], KEYS[8], ARGV[5]
local at = 9

local function take()
  at = at + 1
  return ARGV[at]
end

local function take_item()
  local item = {index = tonumber(take()), verb = take(), outputs = {}}
  if string.find('AODP', item.verb, 1, true) then
    item.verb, item.key, item.origin = string.lower(item.verb), take(), take()
  end
  if item.verb == 'o' then
    item.verb, item.window, item.id = 'a', tonumber(take()), take()
  end
  if item.verb == 'a' then
    for _ = 1, tonumber(take()) do
      local log = FIRST_LOG - 1 + tonumber(take())
      item.outputs[#item.outputs + 1] = {log = log, envelope = take()}
    end
  elseif item.verb == 'n' then
    item.delay, item.record = tonumber(take()), take()
  elseif item.verb == 'p' then
    item.record = take()
  else
    item.field, item.value, item.description = take(), take(), take()
  end
  return item
end

local entries = {}
for _ = 1, tonumber(take()) do
  local entry = {id = take(), count = tonumber(take()), sure = take(), items = {}}
  entry.events = tonumber(take())
  for _ = 1, tonumber(take()) do
    entry.items[#entry.items + 1] = take_item()
  end
  entries[#entries + 1] = entry
end

-- What will be written must be writable: an error in the middle would leave half a step.
local flaw = need(KEYS[2], 'stream') or need(KEYS[3], 'zset') or need(KEYS[4], 'stream')
  or need(KEYS[5], 'hash') or need(KEYS[6], 'hash') or need(KEYS[7], 'hash')
  or need(KEYS[8], 'zset') or is_once and need(HANDLED, 'zset')
for log = FIRST_LOG, #KEYS do
  flaw = flaw or need_room(KEYS[log])
end

-- And the caller must be allowed to: the same error in the middle, the same half of a step.
local adds, scores = false, false
for _, entry in ipairs(entries) do
  for _, item in ipairs(entry.items) do
    local now = item.verb == 'n' and item.delay == 0
    adds = adds or now or item.key or item.verb == 'd' or item.verb == 'p' or #item.outputs > 0
    scores = scores or item.verb == 'n' and not now or item.verb == 'p' or item.window
  end
end
flaw = flaw or forbidden('XCLAIM', KEYS[1], group, consumer, 0, '0-0')
  or forbidden('XACK', KEYS[1], group, '0-0') or forbidden('HSET', KEYS[5], '0-0', '')
  or adds and forbidden('XADD', KEYS[2], '*', RECORD, '')
  or scores and forbidden('ZADD', KEYS[3], 0, '')
if flaw then
  return flaw
end

-- The fence: a run of neighbours first, then each that is missing alone.
local rows = redis.pcall(
  'XPENDING', KEYS[1], group, entries[1].id, entries[#entries].id, #entries, consumer)
local vanished = rows.err and string.sub(rows.err, 1, 7) == 'NOGROUP'
if rows.err and not vanished then
  return rows
end
local counts = {}
if not vanished then
  for _, row in ipairs(rows) do
    counts[row[1]] = row[4]
  end
end
local function is_unsettled(entry)
  return entry.sure == '2'
    or entry.sure == '1' and (entry.count == 1 or not is_consumer_known(KEYS[1], group, consumer))
end

-- A group that was made again or moved back hands it out anew: it is not lost.
local function is_unread(id)
  return is_before(look_at_group(KEYS[1], group).delivered, id)
end

local held = {}
for _, entry in ipairs(entries) do
  if vanished then
    entry.fate = LOST
  elseif counts[entry.id] == nil then
    local row = redis.call('XPENDING', KEYS[1], group, entry.id, entry.id, 1)[1]
    if not row then
      entry.taken = is_unsettled(entry)
      entry.fate = not entry.taken and ALREADY or nil
    elseif row[2] == consumer then
      counts[entry.id] = row[4]
    end
  end
  if not entry.fate and not entry.taken and counts[entry.id] == entry.count then
    held[#held + 1] = entry.id
  elseif not entry.fate and not entry.taken then
    entry.fate = LOST
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
  -- The server takes off the books what was deleted from the stream, and leaves it out. What is
  -- said of it counts all the same, as nobody else can have it.
  local there = {}
  for _, id in ipairs(redis.call(unpack(claim))) do
    there[id] = true
  end
  for _, entry in ipairs(entries) do
    entry.gone = not entry.fate and not entry.taken and not there[entry.id]
  end
end

for _, entry in ipairs(entries) do
  if entry.taken then
    -- Where its message was deleted this does nothing, and what is said of it counts all the same.
    redis.call('XCLAIM', KEYS[1], group, consumer, 0, entry.id,
      'IDLE', 0, 'RETRYCOUNT', entry.count, 'FORCE', 'JUSTID')
  end
end

-- A retry entry holds one event and is never half settled. It must not look at the progress of a
-- log entry that happens to have the same id.
local from_retry = KEYS[1] == KEYS[2]

local function read_bits(id)
  local raw = not from_retry and redis.call('HGET', KEYS[5], id) or ''
  local bits = {}
  for from = 1, #raw, SLICE do
    for _, byte in ipairs({string.byte(raw, from, from + SLICE - 1)}) do
      bits[#bits + 1] = byte
    end
  end
  return bits
end

local function write_bits(id, bits)
  local slices = {}
  for from = 1, #bits, SLICE do
    slices[#slices + 1] = string.char(unpack(bits, from, math.min(from + SLICE - 1, #bits)))
  end
  redis.call('HSET', KEYS[5], id, table.concat(slices))
end

local function is_set(bits, index)
  local byte = bits[math.floor(index / 8) + 1] or 0
  return bit.band(byte, bit.lshift(1, index % 8)) ~= 0
end

local function set(bits, index)
  local place = math.floor(index / 8) + 1
  while #bits < place do
    bits[#bits + 1] = 0
  end
  bits[place] = bit.bor(bits[place], bit.lshift(1, index % 8))
end

local function number_set(bits, events)
  local number = 0
  for index = 0, events - 1 do
    if is_set(bits, index) then
      number = number + 1
    end
  end
  return number
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function park(item)
  local found, least = holders(item.key, item.origin)
  if least and least < item.origin then
    redis.call('ZADD', WAITING, 0, item.key .. '/' .. item.origin .. '/' .. item.record)
    hold(item.key, found)
  else
    -- What held it is gone meanwhile. It is the next, and later ones wait for it.
    redis.call('XADD', RETRY, '*', RECORD, item.record)
    found[#found + 1] = item.origin
    hold(item.key, found)
  end
end

-- A dead letter that parks its key says so, for whoever deletes it.
local function bury(item)
  local letter = {'XADD', KEYS[4], '*', item.field, item.value, DESCRIPTION, item.description}
  if item.key then
    letter[#letter + 1], letter[#letter + 2] = PARKED, item.key .. '/' .. item.origin
    local found = holders(item.key, item.origin)
    found[#found + 1] = item.origin
    hold(item.key, found)
  end
  redis.call(unpack(letter))
end

-- Whether an event of this id was handled within its window, or is in this call. Looking comes
-- first and noting last, after the outputs: where something between them fails, it is repeated.
local noted, unnoted, marked, longest = {}, {}, 0, 0
local function look_up(ids)
  for from = 1, #ids, SLICE do
    local some = {unpack(ids, from, math.min(from + SLICE - 1, #ids))}
    for at, till in ipairs(redis.call('ZMSCORE', HANDLED, unpack(some))) do
      noted[some[at]] = till and tonumber(till)
    end
  end
end

local function is_repeated(item)
  if (noted[item.id] or 0) > now then
    return true
  end
  noted[item.id] = now + item.window
  unnoted[#unnoted + 1] = item
  return false
end

local function note_marks()
  for _, item in ipairs(unnoted) do
    redis.call('ZADD', HANDLED, noted[item.id], item.id)
    marked, longest = marked + 1, math.max(longest, item.window)
  end
  unnoted = {}
end

-- Two old marks go for each new one; all go with the key, where nothing is handled any more.
local function forget_marks()
  local old = redis.call(
    'ZRANGEBYSCORE', HANDLED, '-inf', now, 'LIMIT', 0, math.min(2 * marked, FORGOTTEN_MAX))
  if #old > 0 then
    redis.call('ZREM', HANDLED, unpack(old))
  end
  if redis.call('PTTL', HANDLED) < longest then
    redis.call('PEXPIRE', HANDLED, longest)
  end
end

local function apply(item, outputs)
  if item.verb == 'n' and item.delay == 0 then
    redis.call('XADD', KEYS[2], '*', RECORD, item.record)
  elseif item.verb == 'n' then
    redis.call('ZADD', KEYS[3], now + item.delay, item.record)
  elseif item.verb == 'p' then
    park(item)
  elseif item.verb == 'd' then
    bury(item)
  elseif item.key then
    release(item.key, item.origin)
  end
  for _, output in ipairs(item.outputs) do
    local batch = outputs[output.log] or {}
    outputs[output.log] = batch
    batch[#batch + 1] = output.envelope
  end
end

-- One entry per source entry and target log, or several where there is much: an entry is what one
-- consumer takes at a time.
local function publish(id, outputs)
  for log = FIRST_LOG, #KEYS do
    local batch, bytes = {}, 0
    local function add()
      redis.call('XADD', KEYS[log], '*', BATCH, table.concat(batch), APPENDER, ARGV[7] .. id)
      batch, bytes = {}, 0
    end
    for _, envelope in ipairs(outputs[log] or {}) do
      if #batch >= OUTPUTS_MAX or #batch > 0 and bytes + #envelope > OUTPUT_BYTES_MAX then
        add()
      end
      batch[#batch + 1], bytes = envelope, bytes + #envelope
    end
    if #batch > 0 then
      add()
    end
  end
end

local function finish(id)
  redis.call('XACK', KEYS[1], group, id)
  if from_retry then
    redis.call('XDEL', KEYS[1], id)
    redis.call('HDEL', KEYS[6], id)
  else
    redis.call('HDEL', KEYS[5], id)
  end
end

local answer = {}
local function say(code)
  answer[#answer + 1] = code
end

local ids = {}
for _, entry in ipairs(entries) do
  for _, item in ipairs(entry.items) do
    ids[#ids + 1] = item.window and item.id
  end
end
look_up(ids)

for _, entry in ipairs(entries) do
  local bits = read_bits(entry.id)
  if entry.fate then
    say(1)
    for _, item in ipairs(entry.items) do
      say(is_set(bits, item.index) and ALREADY or entry.fate)
    end
    if entry.fate == ALREADY and not from_retry then
      redis.call('HDEL', KEYS[5], entry.id)
    end
  else
    local slot, outputs = #answer + 1, {}
    say(0)
    for _, item in ipairs(entry.items) do
      if is_set(bits, item.index) then
        say(ALREADY)
      else
        local repeated = item.window and is_repeated(item)
        if repeated then
          item.outputs = {}
        end
        apply(item, outputs)
        set(bits, item.index)
        say(repeated and REPEATED or DONE)
      end
    end
    publish(entry.id, outputs)
    note_marks()
    if number_set(bits, entry.events) >= entry.events then
      finish(entry.id)
      answer[slot] = 1
    else
      write_bits(entry.id, bits)
      answer[slot] = entry.gone and 4 or 0
    end
    if entry.taken and not is_unread(entry.id) then
      answer[slot] = answer[slot] + 2
    end
  end
end
if marked > 0 then
  forget_marks()
end
return answer
