-- ARGV: node, cursor. Reply: {next cursor, connection ids}
local page = redis.call('HSCAN', W .. 'n:' .. ARGV[1], ARGV[2], 'COUNT', 500)
local found = {}
for i = 1, #page[2], 2 do found[#found + 1] = page[2][i] end
return {page[1], found}
