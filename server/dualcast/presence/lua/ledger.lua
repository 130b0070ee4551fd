-- Put before the scripts that change who is there: counts of connections, and which users that moves.
local net, groups = {}, {}

local function note(group, user, by)
  if not net[group] then
    net[group] = {}
    groups[#groups + 1] = group
  end
  net[group][user] = (net[group][user] or 0) + by
end

local function count(key, user, by)
  local n = redis.call('HINCRBY', key, user, by)
  if n <= 0 then redis.call('HDEL', key, user) end
  return n
end

local function member(group, user, by)
  local n = count(W .. 'g:' .. group, user, by)
  if by > 0 and n == 1 then
    redis.call('ZADD', W .. 's:' .. group, 0, user)
    note(group, user, 1)
  elseif by < 0 and n <= 0 then
    redis.call('ZREM', W .. 's:' .. group, user)
    note(group, user, -1)
  end
end

-- Registers a device or notes that it was seen. The one not seen for longest makes room.
local function seen(user, device, kind)
  if device == '' then return end
  local key = W .. 'i:' .. user
  local old = redis.call('HGET', key, device)
  local row = old and cmsgpack.unpack(old) or {'', '', NOW, NOW}
  if kind ~= '' then row[1] = kind end
  row[4] = NOW
  redis.call('HSET', key, device, cmsgpack.pack(row))
  if old or redis.call('HLEN', key) <= MAX_DEVICES then return end
  local all = redis.call('HGETALL', key)
  local oldest, last
  for i = 1, #all, 2 do
    local other = cmsgpack.unpack(all[i + 1])
    if all[i] ~= device and (not last or other[4] < last) then oldest, last = all[i], other[4] end
  end
  redis.call('HDEL', key, oldest)
end

local function leave(node, connection)
  local held = redis.call('HGET', W .. 'n:' .. node, connection)
  if not held then return end
  local user, kind, device, inside = unpack(cmsgpack.unpack(held))
  redis.call('HDEL', W .. 'n:' .. node, connection)
  redis.call('HDEL', W .. 'u:' .. user, connection)
  redis.call('ZREM', W .. 'c', connection .. ' ' .. user)
  if kind ~= '' then count(W .. 'k:' .. kind, user, -1) end
  member('', user, -1)
  for _, group in ipairs(inside) do member(group, user, -1) end
  seen(user, device, kind)
end

local function join(node, connection, user, kind, device, inside, facts)
  local held = redis.call('HGET', W .. 'n:' .. node, connection)
  local before, have = {}, {}
  if held then
    local old = cmsgpack.unpack(held)
    if old[1] ~= user or old[2] ~= kind then
      leave(node, connection)
      held = false
    else
      before = old[4]
    end
  end
  for _, group in ipairs(before) do have[group] = true end
  redis.call('HSET', W .. 'n:' .. node, connection, cmsgpack.pack({user, kind, device, inside}))
  redis.call('HSET', W .. 'u:' .. user, connection, facts)
  if not held then
    redis.call('ZADD', W .. 'c', 0, connection .. ' ' .. user)
    if kind ~= '' then count(W .. 'k:' .. kind, user, 1) end
    member('', user, 1)
    seen(user, device, kind)
  end
  for _, group in ipairs(inside) do
    if have[group] then have[group] = nil else member(group, user, 1) end
  end
  for _, group in ipairs(before) do
    if have[group] then member(group, user, -1) end
  end
end

-- What changed: {group, members, revision, users that joined, users that left} each.
local function deltas()
  local found, revision = {}, nil
  for _, group in ipairs(groups) do
    local joined, left = {}, {}
    for user, by in pairs(net[group]) do
      if by > 0 then joined[#joined + 1] = user elseif by < 0 then left[#left + 1] = user end
    end
    if #joined + #left > 0 then
      if not revision then
        -- At least the clock, so that it also grows when the store was lost.
        revision = text(math.max(tonumber(redis.call('GET', W .. 'r') or '0') + 1, NOW))
        redis.call('SET', W .. 'r', revision)
      end
      table.sort(joined)
      table.sort(left)
      found[#found + 1] = {group, redis.call('HLEN', W .. 'g:' .. group), revision, joined, left}
    end
  end
  return found
end

-- The answer given to `token` before, or nil: a call whose answer was lost is sent again, and what changed must not get
-- lost with it.
local function answered(node, field, token)
  local last = redis.call('HGET', W .. 'd:' .. node, field)
  if not last then return nil end
  local row = cmsgpack.unpack(last)
  if row[1] ~= token then return nil end
  return row
end

local function remember(node, field, token, found, more)
  redis.call('HSET', W .. 'd:' .. node, field, cmsgpack.pack({token, found, more, NOW}))
  redis.call('PEXPIRE', W .. 'd:' .. node, KEEP_MS)
end
