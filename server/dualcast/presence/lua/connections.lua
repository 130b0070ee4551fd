-- ARGV: user ('' : everybody), connection to begin after, most. Reply: {stale, facts}
local user, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found = {}
if user == '' then
  -- ' ' ends a connection's id in the index and '!' is the next character.
  local first = after == '' and '-' or '(' .. after .. '!'
  for _, one in ipairs(redis.call('ZRANGEBYLEX', W .. 'c', first, '+', 'LIMIT', 0, limit)) do
    local connection, owner = string.match(one, '^(%S+) (%S+)$')
    local facts = redis.call('HGET', W .. 'u:' .. owner, connection)
    if facts then found[#found + 1] = facts end
  end
else
  local ids = {}
  for _, connection in ipairs(redis.call('HKEYS', W .. 'u:' .. user)) do
    if connection > after then ids[#ids + 1] = connection end
  end
  table.sort(ids)
  for i = 1, math.min(#ids, limit) do found[i] = redis.call('HGET', W .. 'u:' .. user, ids[i]) end
end
return {stale(), found}
