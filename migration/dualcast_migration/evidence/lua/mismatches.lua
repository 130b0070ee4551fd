-- {before, limit} → {number, record …}, newest first.
local before, limit = unpack(cmsgpack.unpack(ARGV[1]))
local high = '+inf'
if before > 0 then high = '(' .. text(before) end
local reply = {}
for _, number in ipairs(redis.call('ZRANGE', NUMBERS, high, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, limit)) do
  reply[#reply + 1] = number
  reply[#reply + 1] = redis.call('HGET', RECORDS, number)
end
return reply
