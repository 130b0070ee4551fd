-- Leases due jobs. ARGV[1]: msgpack [limit, lease_ms, token]. A repeated call with the same token gives the same jobs.
-- Reply: [facts, when the next is due ('0': nothing waits), job, message, attempts, queued, deadline, job, …]
local limit, lease_ms, token = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock_ms()
local handed = X .. 'c:' .. token
local jobs = {}
local before = redis.call('GET', handed)
if before then
  for _, job in ipairs(cmsgpack.unpack(before)) do
    if redis.call('HGET', JOB .. job, 't') == token then jobs[#jobs + 1] = job end
  end
else
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', text(now), 'LIMIT', 0, limit)) do
    if redis.call('EXISTS', JOB .. job) == 1 then
      redis.call('HINCRBY', JOB .. job, 'a', 1)
      redis.call('HSET', JOB .. job, 't', token)
      redis.call('ZADD', DUE, text(now + lease_ms), job)
      jobs[#jobs + 1] = job
    else
      -- Expired long after its deadline.
      redis.call('ZREM', DUE, job)
      redis.call('ZREM', QUEUED, job)
    end
  end
  if #jobs > 0 then redis.call('SET', handed, cmsgpack.pack(jobs), 'EX', 30) end
end

local first = redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
local out = {facts(now), first[2] or '0'}
for _, job in ipairs(jobs) do
  local state = redis.call('HMGET', JOB .. job, 'a', 'e')
  local message = redis.call('HGET', message_of(job), 'm') or ''
  local queued = redis.call('ZSCORE', QUEUED, job) or text(now)
  for _, value in ipairs({job, message, state[1], queued, state[2]}) do out[#out + 1] = value end
end
return out
