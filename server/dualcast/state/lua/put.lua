-- KEYS: value, head, names, expiries, log. ARGV: member, data, expected or -1, ttl in ms or 0, quiet 0|1, log size, purge at once.
-- Returns {1, version}, or {0, version found} when the expected one is another.
local expected = tonumber(ARGV[3])
local ttl_ms = tonumber(ARGV[4])
local found = tonumber(redis.call('HGET', KEYS[1], 'v') or '0')
if expected >= 0 and found ~= expected then return {0, found} end
local revision = next_revision(KEYS[2])
redis.call('HSET', KEYS[1], 'd', ARGV[2], 'v', string.format('%.0f', revision))
redis.call('ZADD', KEYS[3], 0, ARGV[1])
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
if ttl_ms > 0 then
  redis.call('PEXPIRE', KEYS[1], ttl_ms)
  -- A second later than the value itself: a name is never dropped while its value lives.
  redis.call('ZADD', KEYS[4], string.format('%.0f', now_ms + ttl_ms + 1000), ARGV[1])
else
  redis.call('PERSIST', KEYS[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
end
if ARGV[5] == '0' then record(KEYS[2], KEYS[5], revision, ARGV[1], tonumber(ARGV[6])) end
local due = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', string.format('%.0f', now_ms), 'LIMIT', 0, tonumber(ARGV[7]))
for _, member in ipairs(due) do
  redis.call('ZREM', KEYS[4], member)
  redis.call('ZREM', KEYS[3], member)
end
return {1, revision}
