-- Which tenants have queues: x:t zset tenant → when it was ensured last (ms), in a slot of its own.
-- ARGV[1]: msgpack [what, idle_ms, tenants]. ensure: these have queues · list: all of them · forget: these have no jobs;
-- those that nobody ensured for `idle_ms` go.
local what, idle_ms, tenants = unpack(cmsgpack.unpack(ARGV[1]))
local KNOWN = X .. 't'
local now = clock_ms()
if what == 'list' then return redis.call('ZRANGE', KNOWN, 0, -1) end
for _, tenant in ipairs(tenants) do
  if what == 'ensure' then
    redis.call('ZADD', KNOWN, text(now), tenant)
  else
    local at = redis.call('ZSCORE', KNOWN, tenant)
    if at and tonumber(at) < now - idle_ms then redis.call('ZREM', KNOWN, tenant) end
  end
end
return 1
