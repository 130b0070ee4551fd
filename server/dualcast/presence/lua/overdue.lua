-- Of the pseudo tenant that knows who serves which tenant. ARGV: how long the promise lasts (ms), packed "tenant node" of
-- the caller, packed ones that are settled. Reply: overdue ones, at most 100
local key = W .. 't'
for _, one in ipairs(cmsgpack.unpack(ARGV[3])) do
  local score = tonumber(redis.call('ZSCORE', key, one) or text(NOW))
  if score < NOW then redis.call('ZREM', key, one) end
end
for _, one in ipairs(cmsgpack.unpack(ARGV[2])) do redis.call('ZADD', key, text(NOW + tonumber(ARGV[1])), one) end
return redis.call('ZRANGEBYSCORE', key, '-inf', '(' .. text(NOW), 'LIMIT', 0, 100)
