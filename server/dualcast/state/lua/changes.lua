-- KEYS: head, log. ARGV: after. Returns {revision, complete 0|1, {member, revision, …}} as one snapshot.
local head = redis.call('HMGET', KEYS[1], 'revision', 'floor')
local revision = head[1] or '0'
local floor = head[2] or '0'
local since = ARGV[1]
local complete = 1
if tonumber(since) > tonumber(revision) or tonumber(since) < tonumber(floor) then
  complete = 0
  since = floor
end
return {revision, complete, redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. since, '+inf', 'WITHSCORES')}
