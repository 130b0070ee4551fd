-- Stores the item of an append: once per user, or once for the tenant. An id that is stored already stays as it is.

-- Data and expiry of a publication's record: [id, type, data (binary, which cmsgpack cannot read), time_ms, expires_ms, …].
local function parts_of(body)
  local at = cmsgpack.unpack_one(body, 1)
  at = cmsgpack.unpack_one(body, at)
  local kind, b1, b2, b3, b4 = string.byte(body, at + 1, at + 5)
  local size, head
  if kind == 0xc4 then
    size, head = b1, 2
  elseif kind == 0xc5 then
    size, head = b1 * 256 + b2, 3
  else
    size, head = ((b1 * 256 + b2) * 256 + b3) * 256 + b4, 5
  end
  local from = at + head
  at = cmsgpack.unpack_one(body, from + size)
  local _, expires = cmsgpack.unpack_one(body, at)
  return string.sub(body, from + 1, from + size), expires
end

-- True when it is new.
local function add(keys, offset, id, expires)
  if call('ZADD', keys.i, 'NX', text(offset), id) == 0 then return false end
  if expires < now + MAX_AGE_MS then call('ZADD', keys.e, text(expires), id) end
  return true
end

RIDERS.inbox = function(rider, offset, id, body, now_ms)
  local users, wide, kind = unpack(rider)
  local data, expires = parts_of(body)
  enter_tenant()
  local ends = now + MAX_AGE_MS
  -- The clock of the node that publishes may differ from ours: what counts is how long it has to live.
  if expires > 0 then ends = math.min(ends, expires - now_ms + now) end
  local record = text(now) .. ' ' .. #kind .. ' ' .. kind .. data
  local badges = {}

  if wide then
    if ends > now and add(WIDE, offset, id, ends) then
      call('HSET', WIDE.r, id, record)
      tenant[1] = tenant[1] + 1
      tenant[3] = math.min(tenant[3], ends)
      local _, trimmed = trim(WIDE)
      if trimmed then tenant[1] = tenant[1] + 1 end
      save_tenant()
      for _, key in pairs(WIDE) do call('PEXPIRE', key, text(MAX_AGE_MS + GRACE_MS)) end
    end
    badges['all'] = cmsgpack.pack({-1, -1, 0, tenant[1]})
  end

  for n = 1, #users do
    local user = enter_user(users[n])
    local size
    if ends > now and add(user, offset, id, ends) then
      touch(user)
      user.m[DUE] = math.min(user.m[DUE], ends)
      count_wide(user)
      save(user, id, record)
      if expires > 0 then live(user, user.e) end
      size = trim(user)
      if size == 1 then live(user, user.i) end
    else
      count_wide(user)
      save(user)
    end
    badges[users[n]] = badge(user, size)
  end
  return badges
end
