-- ARGV: node, token, claim (1 or 0), how long the lease lasts (ms), packed joins, packed leaves
-- A join: {connection, user, kind, device, groups, facts}. Reply: {lost, deltas}
local node, token, claim = ARGV[1], ARGV[2], ARGV[3] == '1'
local again = answered(node, 'c', token)
if again then return {0, again[2]} end
if claim then
  redis.call('HSET', W .. 'd:' .. node, 'run', RUN)
elseif not holds(node) then
  return {1, {}}
end
redis.call('ZADD', LEASES, text(NOW + tonumber(ARGV[4])), node)
-- Joins first: who comes back on another connection within the batch was never away.
for _, one in ipairs(cmsgpack.unpack(ARGV[5])) do join(node, unpack(one)) end
for _, connection in ipairs(cmsgpack.unpack(ARGV[6])) do leave(node, connection) end
local found = deltas()
remember(node, 'c', token, found, 0)
return {0, found}
