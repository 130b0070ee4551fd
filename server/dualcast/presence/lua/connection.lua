-- ARGV: connection. Reply: {stale, facts or ''}
local id = ARGV[1] .. ' '
local one = redis.call('ZRANGEBYLEX', W .. 'c', '[' .. id, '(' .. ARGV[1] .. '!', 'LIMIT', 0, 1)[1]
if not one then return {stale(), ''} end
return {stale(), redis.call('HGET', W .. 'u:' .. string.sub(one, #id + 1), ARGV[1]) or ''}
