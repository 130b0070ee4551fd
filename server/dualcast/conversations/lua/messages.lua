-- A page, newest first. ARGV[1]: msgpack [conversation, user ('': a backend), before, limit, age_ms].
-- Reply: "unknown", "stranger", or [seq, body, …].
local room, user, before, limit, age_ms = unpack(cmsgpack.unpack(ARGV[1]))
if redis.call('EXISTS', C .. 'r:' .. room) == 0 then return 'unknown' end
if user ~= '' and redis.call('HEXISTS', C .. 'p:' .. room, user) == 0 then return 'stranger' end
local from = before > 0 and '(' .. text(before) .. '-0' or '+'
local oldest, found = unix_ms() - age_ms, {}
for _, entry in ipairs(redis.call('XREVRANGE', C .. 'm:' .. room, from, '-', 'COUNT', limit)) do
  if tonumber(entry[2][4]) > oldest then
    found[#found + 1] = text(seq_of(entry))
    found[#found + 1] = entry[2][6]
  end
end
return found
