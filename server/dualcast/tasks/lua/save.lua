-- Writes a task and the counters of its batch, if the task's token is the expected one ('' : there must be none).
--
-- ARGV[1]: msgpack [task, expected, token, state, finished, owner, batch, keep_finished, keep_unfinished, max_tasks,
-- max_per_batch]; ARGV[2] record; ARGV[3] facts of a batch that has to be made.
-- Reply: ['ok', gone, batch fields or nothing], or [why not, gone]. Recognises its own first try by the token.
local task, expected, token, state, finished, owner, batch, keep_finished, keep_unfinished, max_tasks, max_per_batch =
  unpack(cmsgpack.unpack(ARGV[1]))
local now = clock()
local gone = tidy(now, keep_finished, keep_unfinished, 't:' .. task, batch ~= '' and 'b:' .. batch or nil)
local key = task_key(task)
local old = call('HMGET', key, 'v', 's', 'n', 'b')
if old[1] == token then
  if batch == '' then return {'ok', gone} end
  return {'ok', gone, batch_fields(batch)}
end
if (old[1] or '') ~= expected then return {'conflict', gone} end

local was, number = old[2] or '', old[3]
if not old[1] then
  local kept, needed = call('ZCARD', EXPIRY), 1
  local b = batch ~= '' and call('HMGET', batch_key(batch), 'o', 't') or {}
  if batch ~= '' and b[1] then
    local declared, joined, ended = tonumber(b[2]), joined_and_ended(batch)
    if b[1] ~= owner then return {'foreign-batch', gone} end
    if declared > 0 and ended >= declared then return {'batch-finished', gone} end
    if joined >= (declared > 0 and declared or max_per_batch) then return {'batch-full', gone} end
  elseif batch ~= '' then
    needed = 2
  end
  if kept + needed > max_tasks then return {'too-many-tasks', gone} end
  if needed == 2 then make_batch(batch, ARGV[3], token, owner, 0, now) end
  number = text(call('INCR', LATEST))
  list(task, '', owner, number)
  if batch ~= '' then call('ZADD', members_key(batch), number, task) end
else
  batch = old[4]
  -- Its batch may be gone when retention was set shorter: the task stays alone.
  if batch ~= '' and not call('ZSCORE', members_key(batch), task) then batch = '' end
end

call('HSET', key, 'd', ARGV[2], 'v', token, 's', state, 'o', owner, 'b', batch, 'n', number)
call('ZADD', EXPIRY, text(now + (finished and keep_finished or keep_unfinished)), 't:' .. task)
if was ~= state then
  if was ~= '' then unlist(task, was, owner) end
  list(task, state, owner, number)
end
if batch == '' then return {'ok', gone} end
if was ~= state then move(batch, was, state) end
settle(batch, now, was ~= state, keep_finished, keep_unfinished)
if was == state then return {'ok', gone} end
return {'ok', gone, batch_fields(batch)}
