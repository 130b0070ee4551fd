-- Put before every script of presence. Keys of a tenant, all under <prefix>{tenant}:w:
--   z         zset   node → end of its lease, Unix ms (0: its connections are being taken off)
--   n:<node>  hash   connection → packed {user, kind, device, groups}
--   d:<node>  hash   run → server run that took the claim · c, r → packed {token, deltas, more, ms} of its last change
--                    and reap; expires
--   c         zset   "<connection> <user>", all scores 0: connections in order of their ids
--   u:<user>  hash   connection → facts (opaque)
--   g:<group> hash   user → connections in the group      s:<group> zset  the same users, all scores 0: in order
--   k:<kind>  hash   user → connections of that device kind
--   i:<user>  hash   device → packed {kind, name, first seen ms, last seen ms}
--   r         string revision of the last change
-- Users and groups are key parts (percent-encoded). The group of everybody is ''.
local W = PREFIX .. 'w:'
local LEASES = W .. 'z'
local KINDS = {'mobile', 'desktop', 'tablet', 'web'}
local MAX_DEVICES = 50
local KEEP_MS = 600000
local FRESH_MS = 120000

local at = redis.call('TIME')
local NOW = at[1] * 1000 + math.floor(at[2] / 1000)

-- Nodes whose connections must not be believed any more, at most 10.
local function expired()
  return redis.call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. text(NOW), 'LIMIT', 0, 10)
end

-- 1 when a query has to wait for a dead node to be taken off.
local function stale()
  return #redis.call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. text(NOW), 'LIMIT', 0, 1)
end

-- Whether the lease of `node` is what the node believes: there, not being taken off, and given by this server run.
local function holds(node)
  local lease = tonumber(redis.call('ZSCORE', LEASES, node) or '0')
  return lease > 0 and redis.call('HGET', W .. 'd:' .. node, 'run') == RUN
end

-- Users per kind, in the order of KINDS.
local function by_kind()
  local found = {}
  for i, kind in ipairs(KINDS) do found[i] = redis.call('HLEN', W .. 'k:' .. kind) end
  return found
end
