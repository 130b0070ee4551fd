-- What every script of the inbox shares. In front stand MAX_ITEMS, MAX_AGE_MS and clock() (Unix milliseconds, by default
-- Redis's own: skew of nodes cannot matter).
--
-- Of a tenant, tenant-wide items:
--   n:m  string  packed [revision, birth (revisions begin there), due_ms, token of the last withdrawal, run id]
--   n:r  hash    id → "<at_ms> <length of kind> <kind><notification>"
--   n:i  zset    id → offset          n:e  zset  id → expiry ms, of those that expire before their age does it
-- Of a user, <u> being its key part:
--   n:r:<u>  hash  the same; the field '' holds the packed account (below)         n:i:<u>, n:e:<u>  as above
--   n:s:<u>  set   ids not unseen     n:d:<u>  set  of these, read or archived     n:a:<u>  set  of these, archived
--   n:x:<u>  hash  tenant-wide id → 8 × offset + state (1 to 4), where the watermarks do not hold; of another offset than the
--                  item's it is a mark of an earlier item of this id
-- Numbers of states: 0 unseen, 1 seen, 2 read, 3 archived, 4 deleted. Counters are sizes of these sets. Keys of a user
-- expire when nothing has changed for longer than any item lives.
local call = redis.call
local N = PREFIX .. 'n:'
local WIDE = {r = N .. 'r', i = N .. 'i', e = N .. 'e'}
local NEVER = 9007199254740992
local GRACE_MS = math.floor(MAX_AGE_MS / 10) + 86400000
-- Places in an account. Watermarks: SEEN_TO - 1 + state. WIDE_*: counts of tenant-wide items at tenant revision WIDE_AT.
-- TOKEN, LAST: of the last change, and how many items it changed.
local REVISION, DUE, KEPT, SEEN_TO, READ_TO, ARCHIVED_TO, DELETED_TO = 1, 2, 3, 4, 5, 6, 7
local WIDE_AT, WIDE_UNREAD, WIDE_UNSEEN, TOKEN, LAST = 8, 9, 10, 11, 12
local now, tenant

local function batched(command, key, values)
  for from = 1, #values, 1000 do
    call(command, key, unpack(values, from, math.min(from + 999, #values)))
  end
end

local function remove(keys, ids)
  if #ids == 0 then return end
  batched('HDEL', keys.r, ids)
  batched('ZREM', keys.i, ids)
  batched('ZREM', keys.e, ids)
  if keys.s then
    batched('SREM', keys.s, ids)
    batched('SREM', keys.d, ids)
    batched('SREM', keys.a, ids)
  end
end

-- Takes out what has expired: how many, and when to look again.
local function purge(keys)
  local gone = call('ZRANGEBYSCORE', keys.e, '-inf', text(now))
  remove(keys, gone)
  local count = #gone
  local due = tonumber(call('ZRANGE', keys.e, 0, 0, 'WITHSCORES')[2] or NEVER)
  while true do
    -- By age the oldest go first, and most often one at a time.
    local old = {}
    local ids = call('ZRANGE', keys.i, 0, 31)
    for n = 1, #ids do
      local ends = tonumber(string.match(call('HGET', keys.r, ids[n]) or '0', '^%d+')) + MAX_AGE_MS
      if ends > now then
        due = math.min(due, ends)
        break
      end
      old[n] = ids[n]
    end
    remove(keys, old)
    count = count + #old
    if #old < 32 then return count, due end
  end
end

-- Drops the oldest beyond MAX_ITEMS: how many are left, and whether any went.
local function trim(keys)
  local size = call('ZCARD', keys.i)
  if size <= MAX_ITEMS then return size, false end
  remove(keys, call('ZRANGE', keys.i, 0, size - MAX_ITEMS - 1))
  return MAX_ITEMS, true
end

local function save_tenant()
  call('SET', N .. 'm', cmsgpack.pack(tenant))
end

-- Sets `now` and `tenant`, with nothing expired left among tenant-wide items.
local function enter_tenant()
  if tenant then return end
  now = clock()
  local packed = call('GET', N .. 'm')
  tenant = packed and cmsgpack.unpack(packed) or {0, 0, NEVER, '', ''}
  if tenant[5] ~= RUN then
    -- New, or another server process wrote last, and a tail of what it gave out, or everything, may be missing here: revisions
    -- (those of users, too) begin again at the time, in ms, so that they go on rising. See fence.lua.
    tenant[1], tenant[2], tenant[5] = math.max(tenant[1] + 1, now), now, RUN
    save_tenant()
  end
  if tenant[3] <= now then
    local count
    count, tenant[3] = purge(WIDE)
    if count > 0 then tenant[1] = tenant[1] + 1 end
    save_tenant()
  end
end

local function touch(user)
  local m = user.m
  if user.fresh then
    m[REVISION] = math.max(m[REVISION], now)
    user.fresh = false
  end
  m[REVISION] = m[REVISION] + 1
  user.dirty = true
end

-- A user with nothing expired left.
local function enter_user(part)
  enter_tenant()
  local user = {}
  for _, letter in ipairs({'r', 'i', 'e', 's', 'd', 'a', 'x'}) do user[letter] = N .. letter .. ':' .. part end
  local packed = call('HGET', user.r, '')
  if not packed then
    user.m = {tenant[2], NEVER, 0, 0, 0, 0, 0, -1, 0, 0, '', 0}
    user.fresh = true
    return user
  end
  user.m = cmsgpack.unpack(packed)
  if user.m[REVISION] < tenant[2] then user.m[REVISION], user.dirty = tenant[2], true end
  if user.m[DUE] <= now then
    local count
    count, user.m[DUE] = purge(user)
    if count > 0 then touch(user) else user.dirty = true end
  end
  return user
end

-- Renews the life of the user's keys when it has become short; true: the account has to be written.
local function renewed(user)
  local m = user.m
  if m[KEPT] >= now + MAX_AGE_MS then return false end
  m[KEPT] = now + MAX_AGE_MS + GRACE_MS
  user.renew = true
  return true
end

-- Writes the account, together with one record when given.
local function save(user, id, record)
  if user.fresh or not (user.dirty or id) then return end
  renewed(user)
  local packed = cmsgpack.pack(user.m)
  if id then call('HSET', user.r, '', packed, id, record) else call('HSET', user.r, '', packed) end
  if user.renew then
    local life = text(user.m[KEPT] - now)
    for _, letter in ipairs({'r', 'i', 'e', 's', 'd', 'a', 'x'}) do call('PEXPIRE', user[letter], life) end
    user.renew = false
  end
  user.dirty = false
end

-- A key of the user's that may just have come into being lives as long as the others. After `save`.
local function live(user, key)
  call('PEXPIRE', key, text(math.max(1, user.m[KEPT] - now)))
end

-- State of a tenant-wide item without a mark.
local function base(m, offset)
  for state = 4, 1, -1 do
    if offset <= m[SEEN_TO - 1 + state] then return state end
  end
  return 0
end

-- Tenant-wide items after this offset are, without a mark, below `state`.
local function floor_of(m, state)
  local found = 0
  for n = state, 4 do found = math.max(found, m[SEEN_TO - 1 + n]) end
  return found
end

-- The state a mark says, or nil when it is not about the item at this offset.
local function marked(value, offset)
  local number = tonumber(value or nil)
  return number and math.floor(number / 8) == offset and number % 8 or nil
end

-- Counts tenant-wide items, once per tenant revision, and drops marks of those that are gone.
local function count_wide(user)
  local m = user.m
  if m[WIDE_AT] == tenant[1] then return end
  local read_floor, seen_floor = floor_of(m, 2), floor_of(m, 1)
  local unread = call('ZCOUNT', WIDE.i, '(' .. text(read_floor), '+inf')
  local unseen = call('ZCOUNT', WIDE.i, '(' .. text(seen_floor), '+inf')
  local marks = call('HGETALL', user.x)
  local dead = {}
  for n = 1, #marks, 2 do
    local offset = tonumber(call('ZSCORE', WIDE.i, marks[n]) or '-1')
    local state = marked(marks[n + 1], offset)
    if not state then
      dead[#dead + 1] = marks[n]
    else
      if state < 2 and offset <= read_floor then unread = unread + 1 end
      if state >= 2 and offset > read_floor then unread = unread - 1 end
      if state >= 1 and offset > seen_floor then unseen = unseen - 1 end
    end
  end
  batched('HDEL', user.x, dead)
  m[WIDE_AT], m[WIDE_UNREAD], m[WIDE_UNSEEN] = tenant[1], unread, unseen
  user.dirty = true
end

-- Counters of a user; `size`: of personal items, when known. Call `count_wide` before.
local function badge(user, size)
  local m = user.m
  if user.fresh then return cmsgpack.pack({m[WIDE_UNREAD], m[WIDE_UNSEEN], m[REVISION], tenant[1]}) end
  size = size or call('ZCARD', user.i)
  local unread = size - call('SCARD', user.d) + m[WIDE_UNREAD]
  local unseen = size - call('SCARD', user.s) + m[WIDE_UNSEEN]
  return cmsgpack.pack({unread, unseen, m[REVISION], tenant[1]})
end

-- The tenant-wide items a user has, oldest first, as {id, offset, state}.
local function wide_items(user)
  local found = {}
  local flat_items = call('ZRANGE', WIDE.i, '(' .. text(user.m[DELETED_TO]), '+inf', 'BYSCORE', 'WITHSCORES')
  if #flat_items == 0 then return found end
  local marks = {}
  local flat = call('HGETALL', user.x)
  for n = 1, #flat, 2 do marks[flat[n]] = flat[n + 1] end
  for n = 1, #flat_items, 2 do
    local offset = tonumber(flat_items[n + 1])
    found[#found + 1] = {flat_items[n], offset, marked(marks[flat_items[n]], offset) or base(user.m, offset)}
  end
  return found
end

local function kind_of(record)
  local size, at = string.match(record, '^%d+ (%d+) ()')
  return string.sub(record, at, at + size - 1), at + size
end
