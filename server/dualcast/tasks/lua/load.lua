-- ARGV[1]: task. Reply: [now, record, token], or [now] when there is none.
local now = clock()
if not alive('t:' .. ARGV[1], now) then return {now} end
local found = call('HMGET', task_key(ARGV[1]), 'd', 'v')
return {now, found[1], found[2]}
