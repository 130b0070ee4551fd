-- ARGV: user. Reply: {stale, connections, connections per kind}
local user = ARGV[1]
local kinds = {}
for i, kind in ipairs(KINDS) do kinds[i] = tonumber(redis.call('HGET', W .. 'k:' .. kind, user) or '0') end
return {stale(), tonumber(redis.call('HGET', W .. 'g:', user) or '0'), kinds}
