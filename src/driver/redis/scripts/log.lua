-- Looks at a log; see facts.lua.
--
-- KEYS[1]  the log
-- Returns  {last id ever, entries ever, length, first id or empty}

local flaw = need(KEYS[1], 'stream')
if flaw then
  return flaw
end
local log = look_at_log(KEYS[1])
return {log.last, log.added, log.length, log.first or ''}
