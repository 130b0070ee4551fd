-- A page of tasks. ARGV[1]: msgpack [batch ('' : of the lists), state, owner, after (0: from the start), limit].
-- Lists are read newest first, batches in the order of joining. Reply: [next ('' : no more), records …].
local batch, state, owner, after, limit = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock()
local found
if batch ~= '' then
  found = call('ZRANGEBYSCORE', members_key(batch), '(' .. text(after), '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
else
  local from = after > 0 and '(' .. text(after) or '+inf'
  found = call('ZREVRANGEBYSCORE', list_key(state, owner), from, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
end
local page = {''}
for i = 1, #found, 2 do
  if alive('t:' .. found[i], now) then page[#page + 1] = call('HGET', task_key(found[i]), 'd') end
end
if #found == limit * 2 then page[1] = found[#found] end
return page
