-- ARGV[1]: msgpack [conversation, user ('': nobody asks), former_ms]. Reply: "unknown", "stranger" or people.
local room, user, former_ms = unpack(cmsgpack.unpack(ARGV[1]))
if redis.call('EXISTS', C .. 'r:' .. room) == 0 then return 'unknown' end
if user ~= '' and redis.call('HEXISTS', C .. 'p:' .. room, user) == 0 then return 'stranger' end
return people(room, former_ms)
