-- Moves a read position. ARGV[1]: msgpack [conversation, user, message ids, former_ms].
-- Reply: "unknown", "stranger", or [position, unread, indexes of unknown ids from 0, people].
local room, user, ids, former_ms = unpack(cmsgpack.unpack(ARGV[1]))
local p = C .. 'p:' .. room
local last = redis.call('HGET', C .. 'r:' .. room, 'n')
if not last then return 'unknown' end
local before = redis.call('HGET', p, user)
if not before then return 'stranger' end
local position, unknown = tonumber(before), {}
for i, id in ipairs(ids) do
  local seq = redis.call('HGET', C .. 'i:' .. room, id)
  if seq then
    position = math.max(position, tonumber(seq))
  else
    unknown[#unknown + 1] = i - 1
  end
end
if position > tonumber(before) then redis.call('HSET', p, user, text(position)) end
last = tonumber(last)
return {text(position), text(last - math.max(position, gone(room, last))), unknown, people(room, former_ms)}
