-- Where the tenant's log stands, after fencing.
--
-- ARGV[1]: msgpack [seen_epoch, seen, fresh, after (-1: no list), limit, names].
-- Reply: [epoch, top, base, floor, earlier epochs "epoch=end …", heads after `after` as name, offset, … by rising offset,
-- offset or nil per name].
local seen_epoch, seen, fresh, after, limit, names = unpack(cmsgpack.unpack(ARGV[1]))
local epoch, top, base, floor = enter(seen_epoch, seen, fresh)
local heads, named = {}, {}
if after >= 0 then
  heads = redis.call('ZRANGEBYSCORE', HEADS, '(' .. text(after), '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
end
if #names > 0 then named = redis.call('ZMSCORE', HEADS, unpack(names)) end
return {epoch, top, base, floor, redis.call('HGET', META, 'l') or '', heads, named}
