-- What the caller may not do is refused in the middle of a script, and what was written before it
-- stays. So a script that writes more than once asks first for what comes last.
local function forbidden(...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(...) then
    local text = 'NOPERM this user may not run the command %s that the script needs'
    return redis.error_reply(string.format(text, (...)))
  end
end

