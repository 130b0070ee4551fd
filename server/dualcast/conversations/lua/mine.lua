-- A participant's conversations. ARGV[1]: msgpack [user, after, limit].
-- Reply: [[conversation, participants, revision, last_seq, last_ms, read_seq, gone], …]
local user, after, limit = unpack(cmsgpack.unpack(ARGV[1]))
local from = after == '' and '-' or '(' .. after
local found = {}
for i, room in ipairs(redis.call('ZRANGEBYLEX', C .. 'u:' .. user, from, '+', 'LIMIT', 0, limit)) do
  local r = redis.call('HMGET', C .. 'r:' .. room, 'v', 'n', 't')
  local p = C .. 'p:' .. room
  found[i] = {room, redis.call('HLEN', p), r[1], r[2], r[3], redis.call('HGET', p, user),
    text(gone(room, tonumber(r[2])))}
end
return found
