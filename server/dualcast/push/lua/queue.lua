-- A tenant's push queue: names and steps every script of it shares. The limits MAX, DEADLINE_MS, MAX_DEAD, DEAD_S are put in front.
--   x:d  zset  job → due ms (a leased job: when the lease ends)      x:q  zset  job → queued ms
--   x:j:<job>  hash  a attempts · e deadline ms · t token of the lease
--   x:m:<id>   hash  m message · n jobs that share it
--   x:b  zset  number of a dead letter      x:l:<number>  hash  k job · m message · a · q · t dead ms · r reason · e error
--   x:s  last number      x:n  hash  totals      x:c:<token>  jobs of a claim      x:v:<number>  who took a dead letter
-- A job is '<user as key part> <publication id>'. Jobs and messages expire a day after their deadline, should nobody work here.
local X = PREFIX .. 'x:'
local DUE, QUEUED, DEAD, TOTALS = X .. 'd', X .. 'q', X .. 'b', X .. 'n'
local JOB, MESSAGE, LETTER = X .. 'j:', X .. 'm:', X .. 'l:'
local SPARE_MS = 86400000

local function clock_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function message_of(job)
  return MESSAGE .. string.match(job, '^%S+ (.*)$')
end

local function count(name, n)
  if n ~= 0 then redis.call('HINCRBY', TOTALS, name, n) end
end

-- Queues jobs of one publication, due now: how many were not queued already.
local function put(jobs, message, now, deadline)
  local gone = math.max(deadline, now) + SPARE_MS
  local fresh = {}
  for _, job in ipairs(jobs) do
    local name = JOB .. job
    if redis.call('HSETNX', name, 'a', '0') == 1 then
      redis.call('HSET', name, 'e', text(deadline))
      redis.call('PEXPIREAT', name, text(gone))
      fresh[#fresh + 1] = text(now)
      fresh[#fresh + 1] = job
    end
  end
  if #fresh == 0 then return 0 end
  for from = 1, #fresh, 2000 do
    local till = math.min(from + 1999, #fresh)
    redis.call('ZADD', DUE, unpack(fresh, from, till))
    redis.call('ZADD', QUEUED, unpack(fresh, from, till))
  end
  local shared = message_of(fresh[2])
  redis.call('HSETNX', shared, 'm', message)
  redis.call('HINCRBY', shared, 'n', #fresh / 2)
  if redis.call('PEXPIRETIME', shared) < gone then redis.call('PEXPIREAT', shared, text(gone)) end
  return #fresh / 2
end

-- Forgets a job.
local function remove(job)
  local shared = message_of(job)
  redis.call('ZREM', DUE, job)
  redis.call('ZREM', QUEUED, job)
  if redis.call('DEL', JOB .. job) == 1 and redis.call('EXISTS', shared) == 1 then
    if redis.call('HINCRBY', shared, 'n', -1) <= 0 then redis.call('DEL', shared) end
  end
end

-- Writes a dead letter; the oldest make room.
local function letter(job, message, attempts, queued, now, reason, err)
  local number = text(redis.call('INCR', X .. 's'))
  redis.call('HSET', LETTER .. number, 'k', job, 'm', message, 'a', attempts, 'q', queued, 't', text(now), 'r', reason, 'e', err)
  redis.call('EXPIRE', LETTER .. number, DEAD_S)
  redis.call('ZADD', DEAD, number, number)
  redis.call('EXPIRE', DEAD, DEAD_S)
  local excess = redis.call('ZCARD', DEAD) - MAX_DEAD
  if excess > 0 then
    for _, old in ipairs(redis.call('ZRANGE', DEAD, 0, excess - 1)) do redis.call('DEL', LETTER .. old) end
    redis.call('ZREMRANGEBYRANK', DEAD, 0, excess - 1)
  end
  count('dead', 1)
end

-- [now, queued, oldest, dead letters, totals]
local function facts(now)
  local oldest = redis.call('ZRANGE', QUEUED, 0, 0, 'WITHSCORES')
  return {
    text(now), redis.call('ZCARD', DUE), oldest[2] or '0', redis.call('ZCARD', DEAD), redis.call('HGETALL', TOTALS),
  }
end
