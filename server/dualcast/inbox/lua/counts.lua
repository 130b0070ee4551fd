-- ARGV[1]: msgpack [user key part, whether by kind]. Reply: [packed badge, kind, count, kind, count …].
local part, by_kind = unpack(cmsgpack.unpack(ARGV[1]))
local user = enter_user(part)
count_wide(user)
save(user)
local out = {badge(user)}
if not by_kind then return out end

local counts, order = {}, {}
local function count(record)
  if not record then return end
  local kind = kind_of(record)
  if not counts[kind] then
    counts[kind] = 0
    order[#order + 1] = kind
  end
  counts[kind] = counts[kind] + 1
end
local unread = call('ZDIFF', 2, user.i, user.d)
for n = 1, #unread do count(call('HGET', user.r, unread[n])) end
for _, item in ipairs(wide_items(user)) do
  if item[3] < 2 then count(call('HGET', WIDE.r, item[1])) end
end
for _, kind in ipairs(order) do
  out[#out + 1] = kind
  out[#out + 1] = counts[kind]
end
return out
