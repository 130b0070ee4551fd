-- Adds and removes participants.
--
-- ARGV[1]: msgpack [conversation, replace, add, remove, token, max_participants, max_remembered, former_ms].
-- Reply: "unknown", "full", or [what as msgpack [joined, left], people]. A repeated call, known by its token, gets the
-- answer of the first.
local room, replace, add, remove, token, most, remembered, former_ms = unpack(cmsgpack.unpack(ARGV[1]))
local r, p, f = C .. 'r:' .. room, C .. 'p:' .. room, C .. 'f:' .. room
local known = redis.call('HMGET', r, 'v', 'n', 'k', 'd')
if not known[1] and not replace then return 'unknown' end
if known[3] == token then return {known[4], people(room, former_ms)} end

local now = unix_ms()
redis.call('ZREMRANGEBYSCORE', f, '-inf', text(now - former_ms))
local present, wanted = {}, {}
for _, user in ipairs(redis.call('HKEYS', p)) do
  present[user] = true
  if not replace then wanted[user] = true end
end
for _, user in ipairs(add) do wanted[user] = true end
if not replace then
  for _, user in ipairs(remove) do wanted[user] = nil end
end
local joined, left, count = {}, {}, 0
for user in pairs(wanted) do
  count = count + 1
  if not present[user] then joined[#joined + 1] = user end
end
for user in pairs(present) do
  if not wanted[user] then left[#left + 1] = user end
end
table.sort(joined)
table.sort(left)
local did = cmsgpack.pack({joined, left})
if #joined == 0 and #left == 0 and known[1] then return {did, people(room, former_ms)} end

local back = 0
for _, user in ipairs(joined) do
  if redis.call('ZSCORE', f, user) then back = back + 1 end
end
if count > most or count + #left + redis.call('ZCARD', f) - back > remembered then return 'full' end

local last = known[2] or '0'
redis.call('HINCRBY', r, 'v', 1)
redis.call('HSETNX', r, 't', text(now))
redis.call('HSET', r, 'n', last, 'k', token, 'd', did)
for _, user in ipairs(joined) do
  redis.call('HSET', p, user, last)
  redis.call('ZREM', f, user)
  redis.call('ZADD', C .. 'u:' .. user, 0, room)
end
for _, user in ipairs(left) do
  redis.call('HDEL', p, user)
  redis.call('ZADD', f, text(now), user)
  redis.call('ZREM', C .. 'u:' .. user, room)
end
return {did, people(room, former_ms)}
