-- Appends many publications of one tenant in order, each atomically: idempotency, quota, offset, history, live publish.
--
-- ARGV[1]: msgpack [seen_epoch, seen, fresh, now_ms, remember_s, entries, seconds, heads, rate, burst, items], an item being
-- [channels (name or list of names), key ('' : do not remember), fingerprint, id, size of body, ephemeral, riders or nothing];
-- riders: {inbox = [users, wide, kind], push = [users, size of message, always, devices, deadline_ms]}, as in model/inbox.py,
-- users as key parts of their channels.
-- ARGV[2]: the bodies, joined, each push message after its body (cmsgpack knows no binary type).
-- In front of this stand RIDERS and the riders of other rooms (bus/storage.py).
-- `rate` 0: no quota. `fresh` is unique per call: a repeated call recognises by it what its first try has done.
-- Reply: [epoch, top, base, result per item]; a result is the offset (0: ephemeral), or a list:
-- [1, epoch, offset, id, fingerprint, own] remembered · [2, wait_us] over quota · [3, error] a rider failed, nothing appended.
local call = redis.call
local seen_epoch, seen, fresh, now, remember_s, entries, seconds, max_heads, rate, burst, items = unpack(cmsgpack.unpack(ARGV[1]))
local bodies, at = ARGV[2], 1
local epoch, top, base, floor = enter(seen_epoch, seen, fresh)
local IDS, LIVE, TAT = PREFIX .. 'i', PREFIX .. 'p:', PREFIX .. 'q'
local out = {epoch, 0, base}
local mine = {}
local start = top
local none = text(floor)

-- First write of the call: out of memory or a failing disk stop it here, before anything happened.
call('HSET', META, 'o', text(top + #items))

local clock, tat, interval, changed
if rate > 0 then
  local t = call('TIME')
  clock = t[1] * 1000000 + t[2]
  interval = 1000000 / rate
  local most = clock + interval * math.max(1, burst)
  tat = math.max(tonumber(call('GET', TAT) or '0'), clock)
  -- Further ahead it is by a smaller quota of before: who is given more need not wait for that to pass.
  if tat > most then tat, changed = most, true end
end

-- Takes one from the quota; nil, or the microseconds to wait.
local function refused()
  local wait = tat + interval - clock - interval * math.max(1, burst)
  if wait > 1 then return math.ceil(wait) end
  tat = tat + interval
  changed = true
end

local function recall(key, value)
  local token, when, offset, size, rest = string.match(value, '^(%w+) (%w+) (%d+) (%d+) ()')
  local print = string.sub(value, rest, rest + size - 1)
  local own = token == fresh and not mine[key]
  mine[key] = true
  return {1, when, tonumber(offset), string.sub(value, rest + size), print, own and 1 or 0}
end

-- Stores what rides along: badges of the channels of an item kept in inboxes.
local function ride(riders, offset, id, body)
  local badges
  if riders.inbox and RIDERS.inbox then badges = RIDERS.inbox(riders.inbox, offset, id, body, now) end
  if riders.push and RIDERS.push then RIDERS.push(riders.push, offset, id, body, now) end
  return riders.inbox and badges
end

for i = 1, #items do
  local channels, key, print, id, size, ephemeral, riders = unpack(items[i])
  local from = at
  at = at + size
  local past = at
  if riders and riders.push then
    at = past + riders.push[2]
    riders.push[2] = string.sub(bodies, past, at - 1)
  end
  local offset = ephemeral and 0 or top + 1
  local number = text(offset)
  local result
  if key ~= '' then
    local name = IDS .. key
    local value = fresh .. ' ' .. epoch .. ' ' .. number .. ' ' .. #print .. ' ' .. print .. id
    if rate > 0 then
      local known = call('GET', name)
      if known then
        result = recall(key, known)
      else
        local wait = refused()
        if wait then
          result = {2, wait}
        else
          call('SET', name, value, 'EX', remember_s)
          mine[key] = true
        end
      end
    elseif call('SET', name, value, 'NX', 'EX', remember_s) then
      mine[key] = true
    else
      result = recall(key, call('GET', name))
    end
  elseif rate > 0 then
    local wait = refused()
    if wait then result = {2, wait} end
  end

  local body = not result and string.sub(bodies, from, past - 1)
  local badges
  if riders and not result then
    local ok, answer = pcall(ride, riders, offset, id, body)
    if ok then
      badges = answer
    else
      result = {3, tostring(type(answer) == 'table' and answer.err or answer)}
      if key ~= '' then
        call('DEL', IDS .. key)
        mine[key] = nil
      end
    end
  end

  if not result then
    if type(channels) == 'string' then channels = {channels} end
    local header = epoch .. ' ' .. number .. ' '
    if ephemeral then
      for c = 1, #channels do
        call('PUBLISH', LIVE .. channels[c], header .. '0 ' .. now .. ' ' .. body)
      end
    else
      top = offset
      local entry_id = number .. '-0'
      local tail = ' ' .. now .. ' ' .. body
      local bare = badges and string.sub(tail, 1, -2)
      for c = 1, #channels do
        local name = channels[c]
        local stream = STREAM .. name
        local value = (call('ZSCORE', HEADS, name) or none) .. (badges and badges[name] and bare .. badges[name] or tail)
        local done = redis.pcall('XADD', stream, 'MAXLEN', entries, entry_id, 'e', value)
        if type(done) == 'table' and done.err then
          -- A stream ahead of the counter belongs to a log that is lost.
          call('DEL', stream)
          call('XADD', stream, entry_id, 'e', value)
        end
        call('EXPIRE', stream, seconds)
        call('ZADD', HEADS, number, name)
        call('PUBLISH', LIVE .. name, header .. value)
      end
    end
    result = offset
  end
  out[i + 3] = result
end

if top ~= start + #items then call('HSET', META, 'o', text(top)) end
if changed then call('SET', TAT, text(tat), 'PX', math.ceil((tat - clock) / 1000) + 1000) end
if math.floor(start / 1024) ~= math.floor(top / 1024) then
  local excess = call('ZCARD', HEADS) - max_heads
  if excess > 0 then
    excess = excess + math.floor(max_heads / 10)
    local last = call('ZRANGE', HEADS, excess - 1, excess - 1, 'WITHSCORES')
    call('HSET', META, 'f', text(math.max(floor, tonumber(last[2] or '0'))))
    call('ZREMRANGEBYRANK', HEADS, 0, excess - 1)
  end
end
out[2] = top
return out
