-- One snapshot of several channels' history after an offset.
--
-- ARGV[1]: msgpack [seen_epoch, seen, fresh, after, limit, now_ms, seconds, max_bytes, names].
-- Reply: [epoch, top, bound, gaps as index, oldest, …, runs as index, [[id, [e, value]], …], …, skipped]. Everything kept of the
-- channels with after < offset ≤ bound is in the runs; a run may go beyond `bound`. Indexes count from 0. `skipped` 1: `after` was given
-- out by a server process whose tail is lost (a restart mark holds it), so what came behind it may be, too: a gap for every channel.
local seen_epoch, seen, fresh, after, limit, now, seconds, max_bytes, names = unpack(cmsgpack.unpack(ARGV[1]))
local epoch, top = enter(seen_epoch, seen, fresh)
local m = redis.call('HMGET', META, 'f', 'k')
local floor = tonumber(m[1] or '0')
local skipped = false
for low, high in string.gmatch(m[2] or '', '(%d+):(%d+)') do
  skipped = skipped or (tonumber(low) < after and after < tonumber(high))
end
local stale = now - seconds * 1000
local gaps, runs, active = {}, {}, {}
local bound = top

for i = 1, #names do
  local head = redis.call('ZSCORE', HEADS, names[i])
  if not head then
    if after < floor or skipped then
      gaps[#gaps + 1] = i - 1
      gaps[#gaps + 1] = 0
    end
  elseif tonumber(head) > after then
    active[#active + 1] = i
  elseif skipped then
    gaps[#gaps + 1] = i - 1
    gaps[#gaps + 1] = 0
  end
end

local most = limit
if #active > 4 then most = math.min(limit, math.max(16, math.ceil(4 * limit / #active))) end
local from = '(' .. text(after) .. '-0'

local function number(entry)
  return tonumber(string.sub(entry[1], 1, -3))
end

-- At most `most` + 1 entries after `after`, without those that are too old, which are trimmed.
local function fetch(stream)
  while true do
    local list = redis.call('XRANGE', stream, from, '+', 'COUNT', most + 1)
    local fit
    for j = 1, #list do
      if tonumber(string.match(list[j][2][2], '^%d+ (%d+) ')) >= stale then
        fit = j
        break
      end
    end
    if fit == 1 or #list == 0 then return list end
    redis.call('XTRIM', stream, 'MINID', text(fit and number(list[fit]) or number(list[#list]) + 1) .. '-0')
  end
end

for _, i in ipairs(active) do
  local list = fetch(STREAM .. names[i])
  if #list == 0 then
    gaps[#gaps + 1] = i - 1
    gaps[#gaps + 1] = 0
  else
    if skipped or tonumber(string.match(list[1][2][2], '^%d+')) > after then
      gaps[#gaps + 1] = i - 1
      gaps[#gaps + 1] = number(list[1])
    end
    local size, share = 0, max_bytes / #active
    local last = #list
    for j = 1, #list do
      size = size + #list[j][2][2]
      if size > share or j == most then
        last = j
        break
      end
    end
    if last < #list then
      bound = math.min(bound, number(list[last]))
      for j = #list, last + 1, -1 do list[j] = nil end
    end
    runs[#runs + 1] = i - 1
    runs[#runs + 1] = list
  end
end
return {epoch, top, bound, gaps, runs, skipped and 1 or 0}
