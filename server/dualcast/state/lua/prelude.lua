-- Shared by the writing scripts. Revisions are Redis time in microseconds, or the last one plus 1 when the clock has not moved on:
-- a store that lost its tail (failover, lost AOF second) never hands out a revision twice.
local function next_revision(head)
  local now = redis.call('TIME')
  local revision = tonumber(now[1]) * 1000000 + tonumber(now[2])
  local last = tonumber(redis.call('HGET', head, 'revision') or '0')
  if revision <= last then revision = last + 1 end
  redis.call('HSET', head, 'revision', string.format('%.0f', revision))
  return revision
end

local function record(head, log, revision, member, log_size)
  redis.call('ZADD', log, string.format('%.0f', revision), member)
  local surplus = redis.call('ZCARD', log) - log_size
  if surplus > 0 then
    local dropped = redis.call('ZPOPMIN', log, surplus)
    redis.call('HSET', head, 'floor', dropped[#dropped])
  end
end
