-- ARGV[1]: msgpack [user key part, items to leave out, limit, states as numbers, kinds, items to look at]; no kinds: every one.
-- Reply: [how many there are, then per item: id, offset, kind, state, wide (1 or 0), notification], newest first.
local part, skip, limit, states, kinds, most = unpack(cmsgpack.unpack(ARGV[1]))
local user = enter_user(part)
save(user)
local wanted, of_kinds = {}, nil
for _, state in ipairs(states) do wanted[state] = true end
for _, kind in ipairs(kinds) do
  of_kinds = of_kinds or {}
  of_kinds[kind] = true
end

-- Both kinds of items that are wanted, as {id, offset, state, wide}.
local found = {}
local function take(keys, id, offset, state, wide)
  if not wanted[state] then return end
  if of_kinds and not of_kinds[(kind_of(call('HGET', keys.r, id)))] then return end
  found[#found + 1] = {id, offset, state, wide}
end

local function newest(key, count)
  return call('ZRANGE', key, 0, count - 1, 'REV', 'WITHSCORES')
end

-- Without filters those older than the page need not be looked at, only counted.
local looked, older = most, 0
if not of_kinds and #states == 4 then
  looked = math.min(skip + limit, most)
  older = math.max(0, math.min(call('ZCARD', user.i), most) - looked)
end
local own = newest(user.i, looked)
for from = 1, #own, 400 do
  local ids = {}
  for n = from, math.min(from + 398, #own - 1), 2 do ids[#ids + 1] = own[n] end
  local seen = call('SMISMEMBER', user.s, unpack(ids))
  local done = call('SMISMEMBER', user.d, unpack(ids))
  local archived = call('SMISMEMBER', user.a, unpack(ids))
  for n = 1, #ids do
    take(user, ids[n], tonumber(own[from + 2 * n - 1]), seen[n] + done[n] + archived[n], 0)
  end
end

local wide = newest(WIDE.i, most)
if #wide > 0 then
  local marks = {}
  local flat = call('HGETALL', user.x)
  for n = 1, #flat, 2 do marks[flat[n]] = flat[n + 1] end
  for n = 1, #wide, 2 do
    local offset = tonumber(wide[n + 1])
    take(WIDE, wide[n], offset, marked(marks[wide[n]], offset) or base(user.m, offset), 1)
  end
end

table.sort(found, function(a, b) return a[2] > b[2] end)
local out = {older + #found}
for n = skip + 1, math.min(skip + limit, #found) do
  local id, offset, state, is_wide = unpack(found[n])
  local record = call('HGET', is_wide == 1 and WIDE.r or user.r, id)
  local kind, from = kind_of(record)
  for _, value in ipairs({id, offset, kind, state, is_wide, string.sub(record, from)}) do out[#out + 1] = value end
end
return out
