-- ARGV[1]: msgpack [user key part, before (0: the newest), limit, states as numbers, kinds, items to look at]; an empty list:
-- every one. Reply: [packed badge, next, then per item: id, offset, kind, state, wide (1 or 0), notification].
local part, before, limit, states, kinds, scan = unpack(cmsgpack.unpack(ARGV[1]))
local user = enter_user(part)
count_wide(user)
save(user)

local function set_of(list)
  if #list == 0 then return nil end
  local found = {}
  for _, one in ipairs(list) do found[one] = true end
  return found
end
local wanted, of_kinds = set_of(states), set_of(kinds)
local chunk = (wanted or of_kinds) and 200 or math.min(limit + 1, 200)

-- Gives the items of one order, newest first, as {id, offset, state}; `states_of` fills in the states of a chunk.
local function feed(keys, lowest, highest, states_of)
  local buffer, place, from, finished = {}, 1, highest, false
  return function()
    if place > #buffer then
      if finished then return nil end
      local flat = call('ZRANGE', keys.i, from, lowest, 'BYSCORE', 'REV', 'LIMIT', 0, chunk, 'WITHSCORES')
      buffer, place = {}, 1
      for n = 1, #flat, 2 do buffer[#buffer + 1] = {flat[n], tonumber(flat[n + 1])} end
      finished = #buffer < chunk
      if #buffer == 0 then return nil end
      from = '(' .. text(buffer[#buffer][2])
      states_of(buffer)
    end
    place = place + 1
    return buffer[place - 1]
  end
end

local function ids_of(items)
  local ids = {}
  for n = 1, #items do ids[n] = items[n][1] end
  return ids
end

local newest = before > 0 and '(' .. text(before) or '+inf'
local personal = feed(user, '-inf', newest, function(items)
  local ids = ids_of(items)
  local seen = call('SMISMEMBER', user.s, unpack(ids))
  local done = call('SMISMEMBER', user.d, unpack(ids))
  local archived = call('SMISMEMBER', user.a, unpack(ids))
  for n = 1, #items do items[n][3] = seen[n] + done[n] + archived[n] end
end)

-- Tenant-wide items can be in a wanted state between two watermarks, and elsewhere by a mark only.
local low, high = user.m[DELETED_TO], NEVER
if wanted then
  table.sort(states)
  low = floor_of(user.m, states[#states] + 1)
  if states[1] > 0 then high = floor_of(user.m, states[1]) end
end
local wide = feed(WIDE, '(' .. text(low), before > 0 and before <= high and newest or text(high), function(items)
  local marks = call('HMGET', user.x, unpack(ids_of(items)))
  for n = 1, #items do items[n][3] = marked(marks[n], items[n][2]) or base(user.m, items[n][2]) end
end)

local elsewhere, next_mark = {}, 0
if wanted then
  local flat = call('HGETALL', user.x)
  for n = 1, #flat, 2 do
    local offset = tonumber(call('ZSCORE', WIDE.i, flat[n]) or '-1')
    local state = marked(flat[n + 1], offset)
    if state and wanted[state] and (offset <= low or offset > high) and (before == 0 or offset < before) then
      elsewhere[#elsewhere + 1] = {flat[n], offset, state}
    end
  end
  table.sort(elsewhere, function(a, b) return a[2] > b[2] end)
end
local function mark()
  next_mark = next_mark + 1
  return elsewhere[next_mark]
end

local out = {badge(user), 0}
local found, looked, last = 0, 0, 0

-- How many personal items there are in the wanted states: after the last there is nothing to look for.
local left = NEVER
if wanted then
  local sizes = {[0] = call('ZCARD', user.i), call('SCARD', user.s), call('SCARD', user.d), call('SCARD', user.a), 0}
  left = 0
  for state = 0, 3 do
    if wanted[state] then left = left + sizes[state] - sizes[state + 1] end
  end
end
local function next_personal()
  return left > 0 and personal() or nil
end

local sources = {next_personal, wide, mark}
local heads = {next_personal(), wide(), mark()}
local function newest_head()
  local best
  for n = 1, 3 do
    if heads[n] and (not best or heads[n][2] > heads[best][2]) then best = n end
  end
  return best
end
local at = newest_head()
while at do
  if found == limit or looked == scan then
    out[2] = last
    break
  end
  local own, item = at == 1, heads[at]
  looked = looked + 1
  last = item[2]
  if item[3] < 4 and (not wanted or wanted[item[3]]) then
    if own then left = left - 1 end
    local record = call('HGET', own and user.r or WIDE.r, item[1])
    local kind, from = kind_of(record)
    if not of_kinds or of_kinds[kind] then
      found = found + 1
      for _, value in ipairs({item[1], item[2], kind, item[3], own and 0 or 1, string.sub(record, from)}) do
        out[#out + 1] = value
      end
    end
  end
  heads[at] = sources[at]()
  at = newest_head()
end
return out
