-- Whether this node tidies up now. ARGV: node, milliseconds. Reply: 1, or 0 when another does.
local key = PREFIX .. 'o:l'
local holder = redis.call('GET', key)
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
return 1
