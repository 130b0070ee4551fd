-- ARGV: user. Reply: {device, kind, name, first seen ms, last seen ms} each
local found = {}
local all = redis.call('HGETALL', W .. 'i:' .. ARGV[1])
for i = 1, #all, 2 do
  local row = cmsgpack.unpack(all[i + 1])
  found[#found + 1] = {all[i], row[1], row[2], text(row[3]), text(row[4])}
end
return found
