-- ARGV[1]: msgpack [user key part, action, all, states, token, ids told of at most]: action 'unread' or the number of a state
-- to raise to (4: delete); all: everything there is, with states (numbers) only what is in one of them. ARGV[2]: the
-- ids, packed. Reply: [packed badge, count, changed ids, unknown ids].
-- The token is unique per call: a call whose reply was lost finds its own token when it is repeated, and reports again.
local part, action, all, states, token, told = unpack(cmsgpack.unpack(ARGV[1]))
local ids = cmsgpack.unpack(ARGV[2])
local user = enter_user(part)
local m = user.m
local repeated = m[TOKEN] == token
local raise = action ~= 'unread' and action or nil

local function after(state)
  if raise then return math.max(state, raise) end
  return state == 2 and 1 or state
end

-- Personal items as {id, offset}.
local function change_personal(items)
  local list = {}
  for n = 1, #items do list[n] = items[n][1] end
  if #list == 0 then return end
  if raise == 4 then return remove(user, list) end
  if not raise then return batched('SREM', user.d, list) end
  batched('SADD', user.s, list)
  if raise >= 2 then batched('SADD', user.d, list) end
  if raise >= 3 then batched('SADD', user.a, list) end
end

local function set_mark(item, state)
  if state == base(m, item[2]) then
    call('HDEL', user.x, item[1])
  else
    call('HSET', user.x, item[1], text(item[2] * 8 + state))
  end
end

local personal, wide, unknown, raised = {}, {}, {}, false
if all then
  local only
  if #states > 0 then
    only = {}
    for _, state in ipairs(states) do only[state] = true end
  end
  local function due(state) return after(state) ~= state and (not only or only[state]) end
  -- Of one command per state rather than a look at every item.
  local function pick(state, command, ...)
    if not due(state) then return end
    local picked = call(command, ...)
    for from = 1, #picked, 1000 do
      local offsets = call('ZMSCORE', user.i, unpack(picked, from, math.min(from + 999, #picked)))
      for n = 1, #offsets do personal[#personal + 1] = {picked[from + n - 1], tonumber(offsets[n])} end
    end
  end
  pick(0, 'ZDIFF', 2, user.i, user.s)
  pick(1, 'SDIFF', user.s, user.d)
  pick(2, 'SDIFF', user.d, user.a)
  pick(3, 'SMEMBERS', user.a)
  local items = wide_items(user)
  for _, item in ipairs(items) do
    if item[3] < 4 and due(item[3]) then wide[#wide + 1] = item end
  end
  if #wide > 0 and not only then
    raised = true
    local top = items[#items][2]
    if raise then
      m[SEEN_TO - 1 + raise] = math.max(m[SEEN_TO - 1 + raise], top)
    else
      m[SEEN_TO], m[READ_TO] = math.max(m[SEEN_TO], m[READ_TO]), 0
    end
    call('DEL', user.x)
    for _, item in ipairs(items) do
      local state = after(item[3])
      if state ~= base(m, item[2]) then call('HSET', user.x, item[1], text(item[2] * 8 + state)) end
    end
  end
elseif #ids > 0 then
  local own = call('ZMSCORE', user.i, unpack(ids))
  local seen = call('SMISMEMBER', user.s, unpack(ids))
  local done = call('SMISMEMBER', user.d, unpack(ids))
  local archived = call('SMISMEMBER', user.a, unpack(ids))
  local common = call('ZMSCORE', WIDE.i, unpack(ids))
  local marks = call('HMGET', user.x, unpack(ids))
  for n, id in ipairs(ids) do
    local known = false
    if own[n] then
      known = true
      local state = seen[n] + done[n] + archived[n]
      if after(state) ~= state then personal[#personal + 1] = {id, tonumber(own[n])} end
    end
    if common[n] then
      local offset = tonumber(common[n])
      local state = marked(marks[n], offset) or base(m, offset)
      known = known or state < 4
      if after(state) ~= state then wide[#wide + 1] = {id, offset, state} end
    end
    if not known then unknown[#unknown + 1] = id end
  end
end
change_personal(personal)
if not raised then
  for _, item in ipairs(wide) do set_mark(item, after(item[3])) end
end

local changed, count = {}, 0
if #personal + #wide > 0 then
  touch(user)
  m[TOKEN] = token
  if #wide > 0 then m[WIDE_AT] = -1 end
  local both, seen = {}, {}
  for _, item in ipairs(personal) do both[#both + 1] = item end
  for _, item in ipairs(wide) do both[#both + 1] = item end
  table.sort(both, function(a, b) return a[2] > b[2] end)
  for _, item in ipairs(both) do
    if not seen[item[1]] then
      seen[item[1]] = true
      count = count + 1
      if count <= told then changed[count] = item[1] end
    end
  end
  m[LAST] = count
elseif repeated then
  count = m[LAST]
  local gone = {}
  for _, id in ipairs(unknown) do gone[id] = true end
  for _, id in ipairs(ids) do
    if raise == 4 or not gone[id] then changed[#changed + 1] = id end
  end
  if raise == 4 then unknown = {} end
end
count_wide(user)
save(user)
if #personal + #wide > 0 then
  for _, letter in ipairs({'s', 'd', 'a', 'x'}) do live(user, user[letter]) end
end
return {badge(user), count, changed, unknown}
