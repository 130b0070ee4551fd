-- Writes what does not follow from a batch's tasks, if its token is the expected one ('' : there must be none).
--
-- ARGV[1]: msgpack [batch, expected, token, owner, total, keep_finished, keep_unfinished, max_tasks]; ARGV[2] facts.
-- Reply: ['ok', gone, batch fields], or [why not, gone]. Recognises its own first try by the token.
local batch, expected, token, owner, total, keep_finished, keep_unfinished, max_tasks = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock()
local gone = tidy(now, keep_finished, keep_unfinished, 'b:' .. batch)
local key = batch_key(batch)
local old = call('HMGET', key, 'v', 't')
if old[1] == token then return {'ok', gone, batch_fields(batch)} end
if (old[1] or '') ~= expected then return {'conflict', gone} end
if not old[1] then
  if call('ZCARD', EXPIRY) >= max_tasks then return {'too-many-tasks', gone} end
  make_batch(batch, ARGV[2], token, owner, total, now)
else
  local declared, joined, ended = tonumber(old[2]), joined_and_ended(batch)
  if declared > 0 and ended >= declared and total ~= declared then return {'batch-finished', gone} end
  if total > 0 and joined > total then return {'batch-full', gone} end
  call('HSET', key, 'd', ARGV[2], 'v', token, 't', text(total))
end
settle(batch, now, true, keep_finished, keep_unfinished)
return {'ok', gone, batch_fields(batch)}
