-- Keeps a message.
--
-- ARGV[1]: msgpack [conversation, sender, strict, id, messages_kept, age_ms, former_ms]; ARGV[2]: the body.
-- Reply: "unknown", "stranger", or [new, seq, body, saved_ms, now_ms, people]. A repeated call finds its own message: new is 0.
local room, sender, strict, id, kept, age_ms, former_ms = unpack(cmsgpack.unpack(ARGV[1]))
local r, p, m, ids = C .. 'r:' .. room, C .. 'p:' .. room, C .. 'm:' .. room, C .. 'i:' .. room
local last = redis.call('HGET', r, 'n')
if not last then return 'unknown' end
local member = redis.call('HEXISTS', p, sender) == 1
if strict and not member then return 'stranger' end

local before = redis.call('HGET', ids, id)
if before then
  local entry = redis.call('XRANGE', m, before .. '-0', before .. '-0')[1]
  if entry then return {0, before, entry[2][6], entry[2][4], text(unix_ms()), people(room, former_ms)} end
end

local now, seq = unix_ms(), tonumber(last) + 1
redis.call('HSET', r, 'n', text(seq), 't', text(now))
redis.call('XADD', m, text(seq) .. '-0', 'i', id, 't', text(now), 'b', ARGV[2])
redis.call('HSET', ids, id, text(seq))
if member then redis.call('HSET', p, sender, text(seq)) end

-- A few of the oldest at a time: each message makes room for itself.
local upto
for _, entry in ipairs(redis.call('XRANGE', m, '-', '+', 'COUNT', 8)) do
  if seq_of(entry) > seq - kept and tonumber(entry[2][4]) > now - age_ms then break end
  redis.call('HDEL', ids, entry[2][2])
  upto = seq_of(entry)
end
if upto then redis.call('XTRIM', m, 'MINID', text(upto + 1) .. '-0') end
redis.call('PEXPIRE', m, text(age_ms))
redis.call('PEXPIRE', ids, text(age_ms))
return {1, text(seq), ARGV[2], text(now), text(now), people(room, former_ms)}
