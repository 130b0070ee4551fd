-- Which of these users stand in the older backends' set of online users. ARGV: users. Reply: 1 or 0 for each.
local out = {}
for i, user in ipairs(ARGV) do out[i] = redis.call('SISMEMBER', 'ws:online_users', user) end
return out
