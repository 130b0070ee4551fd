-- What a node heard on the names of older backends: which occurrence of it that was, the same answer for every node.
-- ARGV[1]: msgpack [subscription, since, keep_s, items], an item being [hash, number, subject]; `since`: server time in
-- microseconds when the subscription began; `number`: of the message in its subscription. A call may come twice, but
-- has no hash twice; `subject`: '' or of which only the latest message counts.
-- Reply per item: {place ('' : dualcast published it itself), sequence, 1 unless a later one of the subject was heard}.
--   o:y:<hash>  string  published by dualcast     o:v:<subject>  string  sequence of the latest
--   o:s:<hash>  hash    b sequence of the first · n occurrences · t<i> sequence of the i-th ·
--                       :<subscription> "number i"
--   o:q         string  the last sequence: server time in microseconds, never twice
local call = redis.call
local subscription, since, keep, items = unpack(cmsgpack.unpack(ARGV[1]))
local O = PREFIX .. 'o:'
local who = ':' .. subscription
local REMEMBERED = 64
local at = call('TIME')
local now = at[1] * 1000000 + at[2]
local last_sequence = tonumber(call('GET', O .. 'q') or '0')
local out = {}

for i, item in ipairs(items) do
  local hash, number, subject = unpack(item)
  if call('EXISTS', O .. 'y:' .. hash) == 1 then
    out[i] = {'', 0, 0}
  else
    local key = O .. 's:' .. hash
    local count = tonumber(call('HGET', key, 'n') or '0')
    local mine = call('HGET', key, who)
    local place
    if mine then
      local heard, before = string.match(mine, '(%d+) (%d+)')
      place = tonumber(before)
      if tonumber(heard) ~= number then place = place + 1 end
    else
      -- What others heard before this subscription began is not what it hears now.
      local before = count
      while before > 0 do
        local when = call('HGET', key, 't' .. before)
        if not when or tonumber(when) < since then break end
        before = before - 1
      end
      place = before + 1
    end
    local sequence
    if place > count then
      sequence = math.max(now, last_sequence + 1)
      last_sequence = sequence
      call('HSETNX', key, 'b', text(sequence))
      call('HSET', key, 'n', place, 't' .. place, text(sequence))
      if place > REMEMBERED then call('HDEL', key, 't' .. (place - REMEMBERED)) end
    else
      sequence = tonumber(call('HGET', key, 't' .. place) or '0')
    end
    call('HSET', key, who, text(number) .. ' ' .. place)
    call('EXPIRE', key, keep)
    local latest = 1
    if subject ~= '' then
      local known = tonumber(call('GET', O .. 'v:' .. subject) or '0')
      if sequence < known then
        latest = 0
      elseif sequence > known then
        call('SET', O .. 'v:' .. subject, text(sequence), 'EX', keep)
      end
    end
    out[i] = {call('HGET', key, 'b') .. '-' .. place, sequence, latest}
  end
end

call('SET', O .. 'q', text(last_sequence), 'EX', 86400)
return out
