-- Instances over all nodes, in the slot of the tenant `~pairs`. Keys, all under <prefix>{~pairs}:f:
--   z         zset   node → end of its lease, Unix ms (0: its rows are being taken off)
--   r         hash   node → server run it registered with: rows of another run are not believed
--   k:<key>   hash   connection → "<node> <row>"
--   n:<node>  set    "<key> <connection>" of its rows
--   d:<node>  zset   key → number of the change: news for the node
--   s         string number of the last change      t  time of the last call      y  until then nobody is dead
-- A node is "<name>.<incarnation>"; one that lost its lease comes back under the next incarnation.
-- ARGV[1]: msgpack [node, new, lease_ms, ack, news, reap, anew, [[key, connection, row] …], [[key, connection] …]]
-- Reply: {1} (the node is not known) or {0, ack, more, [key, [connection, row, …]] …}
local node, new, lease_ms, ack, limit, reap, anew, puts, gone = unpack(cmsgpack.unpack(ARGV[1]))
local MAX_ROWS = 64
local MAX_BYTES = 1048576
local F = PREFIX .. 'f:'
local LEASES, RUNS, LAST = F .. 'z', F .. 'r', F .. 's'
local at = redis.call('TIME')
local NOW = at[1] * 1000 + math.floor(at[2] / 1000)

-- When nobody could call for long, all leases are over although their nodes live.
local before = tonumber(redis.call('GET', F .. 't') or '0')
if before > 0 and NOW - before > lease_ms / 2 then redis.call('SET', F .. 'y', text(NOW + lease_ms)) end
redis.call('SET', F .. 't', text(NOW))
local patient = NOW < tonumber(redis.call('GET', F .. 'y') or '0')

local trust = {}
local function believed(name)
  if trust[name] == nil then
    local lease = tonumber(redis.call('ZSCORE', LEASES, name) or '0')
    trust[name] = lease > 0 and (lease >= NOW or patient) and redis.call('HGET', RUNS, name) == RUN
  end
  return trust[name]
end

if new == 1 then
  redis.call('HSET', RUNS, node, RUN)
elseif tonumber(redis.call('ZSCORE', LEASES, node) or '0') <= 0 or redis.call('HGET', RUNS, node) ~= RUN then
  return {1}
end
redis.call('ZADD', LEASES, text(NOW + lease_ms), node)

local number = tonumber(redis.call('GET', LAST) or '0')
local function owner_of(value)
  return string.match(value, '^(%S+)')
end

-- News of `key` for whoever has rows of it beside `teller`; for `teller`, too, when `both` and there are others.
local function tell(key, teller, both)
  local told = {}
  for _, value in ipairs(redis.call('HVALS', F .. 'k:' .. key)) do
    local owner = owner_of(value)
    if owner ~= teller then told[owner] = true end
  end
  if both and next(told) then told[teller] = true end
  for owner in pairs(told) do
    number = number + 1
    redis.call('ZADD', F .. 'd:' .. owner, text(number), key)
  end
end

for _, put in ipairs(puts) do
  local key, connection = put[1], put[2]
  local rows = F .. 'k:' .. key
  local old = redis.call('HGET', rows, connection)
  local first = anew == 1 or not old or owner_of(old) ~= node
  if old or redis.call('HLEN', rows) < MAX_ROWS then
    redis.call('HSET', rows, connection, node .. ' ' .. put[3])
    redis.call('SADD', F .. 'n:' .. node, key .. ' ' .. connection)
    tell(key, node, first)
  end
end

-- Takes a row off, unless another incarnation has it by now.
local function take(key, connection, owner)
  local old = redis.call('HGET', F .. 'k:' .. key, connection)
  if old and owner_of(old) == owner then
    redis.call('HDEL', F .. 'k:' .. key, connection)
    tell(key, owner, false)
  end
end

for _, one in ipairs(gone) do
  redis.call('SREM', F .. 'n:' .. node, one[1] .. ' ' .. one[2])
  take(one[1], one[2], node)
end

if not patient then
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. text(NOW), 'LIMIT', 0, 2)) do
    redis.call('ZADD', LEASES, 0, dead)
    for _, name in ipairs(redis.call('SPOP', F .. 'n:' .. dead, reap)) do
      local key, connection = string.match(name, '^(%S+) (.*)$')
      take(key, connection, dead)
    end
    if redis.call('EXISTS', F .. 'n:' .. dead) == 0 then
      redis.call('ZREM', LEASES, dead)
      redis.call('HDEL', RUNS, dead)
      redis.call('DEL', F .. 'd:' .. dead)
    end
  end
end
redis.call('SET', LAST, text(number))

local news = F .. 'd:' .. node
if ack > 0 then redis.call('ZREMRANGEBYSCORE', news, '-inf', text(ack)) end
local found = redis.call('ZRANGE', news, 0, limit - 1, 'WITHSCORES')
local reply = {0, '0', redis.call('ZCARD', news) > limit and 1 or 0}
local self = string.match(node, '^[^.]+')
local size = 0
for i = 1, #found, 2 do
  if size > MAX_BYTES then
    reply[3] = 1
    break
  end
  local rows = {}
  local all = redis.call('HGETALL', F .. 'k:' .. found[i])
  for j = 1, #all, 2 do
    local owner = owner_of(all[j + 1])
    if string.match(owner, '^[^.]+') ~= self and believed(owner) then
      rows[#rows + 1] = all[j]
      rows[#rows + 1] = string.sub(all[j + 1], #owner + 2)
      size = size + #all[j + 1]
    end
  end
  reply[2] = found[i + 1]
  reply[#reply + 1] = {found[i], rows}
end
return reply
