-- How a leased job ended. ARGV[1]: msgpack [what, job, token, delay_ms, reason, error], `what` being done, retry or bury.
-- Reply: 1, or 0 when the job is gone or (retry, bury) leased to somebody else. A repeated call does nothing.
local what, job, token, delay_ms, reason, err = unpack(cmsgpack.unpack(ARGV[1]))
local state = redis.call('HMGET', JOB .. job, 'a', 't')
if not state[1] then return 0 end
if what == 'done' then
  remove(job)
  count('sent', 1)
  return 1
end
if state[2] ~= token then return 0 end
local now = clock_ms()
if what == 'retry' then
  redis.call('HDEL', JOB .. job, 't')
  redis.call('ZADD', DUE, text(now + delay_ms), job)
  count('retried', 1)
else
  local message = redis.call('HGET', message_of(job), 'm') or ''
  letter(job, message, state[1], redis.call('ZSCORE', QUEUED, job) or text(now), now, reason, err)
  remove(job)
end
return 1
