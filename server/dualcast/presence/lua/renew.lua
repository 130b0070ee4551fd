-- ARGV: node, how long the lease lasts (ms), idle (1 or 0). Reply: {lost, expired nodes, users, users per kind}
local node = ARGV[1]
if ARGV[3] == '1' and redis.call('EXISTS', W .. 'n:' .. node) == 0 then
  redis.call('ZREM', LEASES, node)
  redis.call('DEL', W .. 'd:' .. node)
elseif not holds(node) then
  return {1, expired(), 0, {}}
else
  redis.call('ZADD', LEASES, text(NOW + tonumber(ARGV[2])), node)
  redis.call('PEXPIRE', W .. 'd:' .. node, KEEP_MS)
end
return {0, expired(), redis.call('HLEN', W .. 'g:'), by_kind()}
