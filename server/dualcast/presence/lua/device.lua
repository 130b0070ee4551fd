-- ARGV: user, device, 'name' or 'forget', name, kind. Reply of 'name': the row or {}; of 'forget': 1 or 0
local user, device = ARGV[1], ARGV[2]
local key = W .. 'i:' .. user
if ARGV[3] == 'forget' then return redis.call('HDEL', key, device) end
if redis.call('HEXISTS', key, device) == 0 then
  if ARGV[5] == '' then return {} end
  seen(user, device, ARGV[5])
end
local row = cmsgpack.unpack(redis.call('HGET', key, device))
row[2] = ARGV[4]
if ARGV[5] ~= '' then row[1] = ARGV[5] end
redis.call('HSET', key, device, cmsgpack.pack(row))
return {device, row[1], row[2], text(row[3]), text(row[4])}
