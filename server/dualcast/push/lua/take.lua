-- Takes a dead letter away. ARGV[1]: msgpack [number, revive, token]; `revive`: it becomes a job again. Reply: 1, or 0: no such letter.
-- `token` tells a repeated call from a second one.
local number, revive, token = unpack(cmsgpack.unpack(ARGV[1]))
number = text(number)
local name, taken = LETTER .. number, X .. 'v:' .. number
local kept = redis.call('HMGET', name, 'k', 'm')
if not kept[1] then
  return redis.call('GET', taken) == token and 1 or 0
end
if revive then
  local now = clock_ms()
  count('queued', put({kept[1]}, kept[2], now, now + DEADLINE_MS))
end
redis.call('DEL', name)
redis.call('ZREM', DEAD, number)
redis.call('SET', taken, token, 'EX', 60)
return 1
