-- Parked keys: what holds the later events of a key back. Put before the scripts that need it,
-- which say first what these are:
local PARKING, WAITING, RETRY, RECORD -- three keys, and the field of a retry record

-- What holds the later events of a key back: the origins of its dead letters, and of those that are
-- run after having been one or having waited for one. Nobody is parked whom none of them precedes.
local function holders(key, without)
  local found, least, had = {}, nil, false
  for origin in string.gmatch(redis.call('HGET', PARKING, key) or '', '%S+') do
    if origin == without then
      had = true
    else
      found[#found + 1] = origin
      least = (not least or origin < least) and origin or least
    end
  end
  return found, least, had
end

local function hold(key, found)
  if #found == 0 then
    redis.call('HDEL', PARKING, key)
  else
    redis.call('HSET', PARKING, key, table.concat(found, ' '))
  end
end

-- The event does not hold the key any more: the next one that waits is run, and holds it.
local function release(key, origin)
  local found, least, had = holders(key, origin)
  if not had then
    return
  end
  local next = redis.call(
    'ZRANGEBYLEX', WAITING, '[' .. key .. '/', '(' .. key .. '0', 'LIMIT', 0, 1)
  local waiting = next[1] and string.sub(next[1], 34, 85)
  if waiting and (not least or waiting < least) then
    redis.call('ZREM', WAITING, next[1])
    redis.call('XADD', RETRY, '*', RECORD, string.sub(next[1], 87))
    found[#found + 1] = waiting
  end
  hold(key, found)
end

