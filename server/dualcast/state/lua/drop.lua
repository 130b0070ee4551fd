-- KEYS: value, head, names, expiries, log. ARGV: member, in the log 0|1, log size.
-- Returns {data, version} of what was there, or nil.
local found = redis.call('HMGET', KEYS[1], 'd', 'v')
if not found[2] then return false end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if ARGV[2] == '1' then record(KEYS[2], KEYS[5], next_revision(KEYS[2]), ARGV[1], tonumber(ARGV[3])) end
return found
