-- Keys and steps that the scripts of tasks share. Ids are key parts; times are Unix milliseconds of this server.
--   t:t:<task>    hash  d record · v token · s state · o owner · b batch · n number
--   t:b:<batch>   hash  d facts · v token · o owner · t declared total (0: none) · a created · u updated · e ended · r revision
--                       queued … cancelled: counters
--   t:m:<batch>   zset  task → number              t:l:<state>:<owner>  zset  task → number ('' : every state, everybody)
--   t:e           zset  't:'<task>, 'b:'<batch> → when it is over       t:n  number of the latest task
local call = redis.call
local ROOM = PREFIX .. 't:'
local EXPIRY, LATEST = ROOM .. 'e', ROOM .. 'n'
local COUNTS = {'queued', 'processing', 'completed', 'failed', 'cancelled'}
local TIDY = 20

local function task_key(task) return ROOM .. 't:' .. task end
local function batch_key(batch) return ROOM .. 'b:' .. batch end
local function members_key(batch) return ROOM .. 'm:' .. batch end
local function list_key(state, owner) return ROOM .. 'l:' .. state .. ':' .. owner end

local function clock()
  local t = call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function alive(name, now)
  local at = call('ZSCORE', EXPIRY, name)
  return at and tonumber(at) > now
end

-- Facts and counters as the node reads them: [facts, token, declared, created, updated, ended, revision, five counters].
local function batch_fields(batch)
  return call('HMGET', batch_key(batch), 'd', 'v', 't', 'a', 'u', 'e', 'r', unpack(COUNTS))
end

local function joined_and_ended(batch)
  local n = call('HMGET', batch_key(batch), unpack(COUNTS))
  for i = 1, 5 do n[i] = tonumber(n[i] or '0') end
  return n[1] + n[2] + n[3] + n[4] + n[5], n[3] + n[4] + n[5]
end

-- Moves a task of the batch from one counter to another ('' : it is new). If the batch has ended, it is now that it has (`settle`).
local function move(batch, was, state)
  local key = batch_key(batch)
  call('HINCRBY', key, state, 1)
  if was ~= '' then call('HINCRBY', key, was, -1) end
  call('HSET', key, 'e', '0')
end

-- The batch's end, retention and (if `changed`) revision as its counters now say.
local function settle(batch, now, changed, keep_finished, keep_unfinished)
  local key = batch_key(batch)
  local joined, ended = joined_and_ended(batch)
  local b = call('HMGET', key, 't', 'u', 'e')
  local total = math.max(tonumber(b[1]), joined)
  local over = total > 0 and ended >= total
  local updated = tonumber(b[2])
  if changed then
    updated = math.max(updated, now)
    call('HINCRBY', key, 'r', 1)
    call('HSET', key, 'u', text(updated))
  end
  if not over then
    call('HSET', key, 'e', '0')
  elseif b[3] == '0' then
    call('HSET', key, 'e', text(updated))
  end
  -- A second longer than its tasks: a batch never goes before them.
  call('ZADD', EXPIRY, text(now + (over and keep_finished or keep_unfinished) + 1000), 'b:' .. batch)
end

local function unlist(task, state, owner)
  call('ZREM', list_key(state, ''), task)
  call('ZREM', list_key(state, owner), task)
end

local function list(task, state, owner, number)
  call('ZADD', list_key(state, ''), number, task)
  call('ZADD', list_key(state, owner), number, task)
end

local function forget_task(task, now, keep_finished, keep_unfinished)
  local old = call('HMGET', task_key(task), 's', 'o', 'b')
  call('DEL', task_key(task))
  call('ZREM', EXPIRY, 't:' .. task)
  if not old[1] then return end
  unlist(task, old[1], old[2])
  unlist(task, '', old[2])
  if old[3] ~= '' and call('ZREM', members_key(old[3]), task) == 1 then
    if (old[1] == 'queued' or old[1] == 'processing') and alive('b:' .. old[3], now) then
      -- Nobody will ever report it: its batch ends without it.
      move(old[3], old[1], 'failed')
      settle(old[3], now, true, keep_finished, keep_unfinished)
    end
  end
end

-- Removes one task or batch of which retention has ended, and notes it in `gone`.
local function forget(name, now, keep_finished, keep_unfinished, gone)
  local id = string.sub(name, 3)
  if string.sub(name, 1, 2) == 't:' then
    forget_task(id, now, keep_finished, keep_unfinished)
    gone[#gone + 1] = 'task:' .. id
  else
    -- Tasks that are left of it are due as well; without this set none counts in a later batch of this id.
    call('DEL', batch_key(id), members_key(id))
    call('ZREM', EXPIRY, name)
    gone[#gone + 1] = 'batch:' .. id
  end
end

-- Removes the names given, if they are over, and some of the oldest.
local function tidy(now, keep_finished, keep_unfinished, ...)
  local gone = {}
  for _, name in ipairs({...}) do
    local at = call('ZSCORE', EXPIRY, name)
    if at and tonumber(at) <= now then forget(name, now, keep_finished, keep_unfinished, gone) end
  end
  for _, name in ipairs(call('ZRANGEBYSCORE', EXPIRY, '-inf', text(now), 'LIMIT', 0, TIDY)) do
    forget(name, now, keep_finished, keep_unfinished, gone)
  end
  return gone
end

-- A batch nobody has joined yet.
local function make_batch(batch, facts, token, owner, total, now)
  local at = text(now)
  call('DEL', members_key(batch))
  call('HSET', batch_key(batch), 'd', facts, 'v', token, 'o', owner, 't', text(total), 'a', at, 'u', at, 'e', '0', 'r', '0')
end
