-- ARGV[1]: batch. Reply: [now, fields], or [now] when there is none.
local now = clock()
if not alive('b:' .. ARGV[1], now) then return {now} end
return {now, batch_fields(ARGV[1])}
