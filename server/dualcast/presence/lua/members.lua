-- ARGV: group, user to begin after ('' : the first), most users
-- Reply: {stale, members, revision, users, per kind: connections or nil per user}
local group, after = ARGV[1], ARGV[2]
local first = after == '' and '-' or '(' .. after
local users = redis.call('ZRANGEBYLEX', W .. 's:' .. group, first, '+', 'LIMIT', 0, tonumber(ARGV[3]))
local kinds = {}
if #users > 0 then
  for i, kind in ipairs(KINDS) do kinds[i] = redis.call('HMGET', W .. 'k:' .. kind, unpack(users)) end
end
return {stale(), redis.call('HLEN', W .. 'g:' .. group), redis.call('GET', W .. 'r') or '0', users, kinds}
