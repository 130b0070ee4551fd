-- Jobs for those who are away, in the append's own step. The clock of the node that publishes may differ from ours (less than
-- SKEW_MS is the way here): of its deadlines counts how much time is left.
local SKEW_MS = 1000

local function enqueue(rider, id, now_ms)
  local users, message, always, devices, deadline = unpack(rider)
  local now = clock_ms()
  if deadline == 0 then
    deadline = now + DEADLINE_MS
  elseif math.abs(now - now_ms) >= SKEW_MS then
    deadline = deadline - now_ms + now
  end

  local online = {}
  if not always then
    local present = {}
    if #devices == 0 then present[1] = PREFIX .. 'w:g:' end
    for i = 1, #devices do present[i] = PREFIX .. 'w:k:' .. devices[i] end
    for from = 1, #users, 1000 do
      local till = math.min(from + 999, #users)
      for _, name in ipairs(present) do
        local found = redis.call('HMGET', name, unpack(users, from, till))
        for i = from, till do
          local connections = found[i - from + 1]
          if connections and connections ~= '0' then online[i] = true end
        end
      end
    end
  end

  local room = MAX - redis.call('ZCARD', DUE)
  local jobs, beyond, skipped = {}, {}, 0
  for i = 1, #users do
    if online[i] then
      skipped = skipped + 1
    else
      local into = #jobs < room and jobs or beyond
      into[#into + 1] = users[i] .. ' ' .. id
    end
  end
  count('queued', put(jobs, message, now, deadline))
  count('skipped', skipped)
  for _, job in ipairs(beyond) do
    if redis.call('EXISTS', JOB .. job) == 0 then letter(job, message, 0, text(now), now, 'queue-full', '') end
  end
end

-- Whatever is wrong with the queue, the publication itself goes on.
RIDERS.push = function(rider, offset, id, body, now_ms)
  if not pcall(enqueue, rider, id, now_ms) then redis.pcall('HINCRBY', TOTALS, 'broken', 1) end
end
