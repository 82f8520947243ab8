-- What the caller may not do is refused in the middle of a script, and what was written before it
-- stays. So a script that writes more than once asks first. Put before the scripts that need it.
local function forbidden(...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(...) then
    local text = "NOPERM this user has no permissions to run the '%s' command of a script"
    return redis.error_reply(string.format(text, string.lower((...))))
  end
end

