-- Prelude of every script. `RUN`, the server's run id, is put in front when the script is loaded, so a script loaded
-- into one server process never runs in another: the first call after a restart or failover is answered NOSCRIPT, and
-- the script loaded then notices that the tenant's log was last written under another RUN.
--
-- KEYS[1] is the tenant's meta hash `<prefix>{tenant}:m`; every other key is derived from it and has the same hash tag,
-- so one call touches one slot.
--   m  hash   e epoch · o counter · b base (offset the epoch began above) · f floor of pruned heads · r run id
--             l earlier epochs "epoch=end …" · k restart marks "low:high …"
--   h  zset   channel → last offset            s:<channel>  stream <offset>-0 → "prev time_ms body"
--   i<key>    receipt of an id or idempotency key           q  GCRA state           p:<channel>  pub/sub name
-- and what other rooms keep (bus/storage.py), each under a letter of its own:
--   n:… inbox         w:… presence         x:… push         t:… tasks         c:… conversations         f:… pairing
local META = KEYS[1]
local PREFIX = string.sub(META, 1, -2)
local HEADS = PREFIX .. 'h'
local STREAM = PREFIX .. 's:'
local JUMP = 1048576
local KEPT = 32

-- A number as text; plain `..` keeps only 14 digits.
local function text(n)
  return string.format('%.0f', n)
end

-- `old` with `item` added at its end, cut to the last KEPT items.
local function push(old, item)
  local items = {}
  for one in string.gmatch(old or '', '%S+') do items[#items + 1] = one end
  items[#items + 1] = item
  return table.concat(items, ' ', math.max(1, #items - KEPT + 1))
end

-- `lineage` with the end of `epoch` set to `last`.
local function ended(lineage, epoch, last)
  local rest = {}
  for name, at in string.gmatch(lineage or '', '(%w+)=(%d+)') do
    if name ~= epoch then rest[#rest + 1] = name .. '=' .. at end
  end
  return push(table.concat(rest, ' '), epoch .. '=' .. text(last))
end

-- The tenant's epoch, counter, base and floor, for a caller that saw offset `seen` of epoch `seen_epoch` ('' : nothing).
-- Makes the epoch of a new tenant, and renews it (name `fresh`) when the log does not hold all the caller has seen.
local function enter(seen_epoch, seen, fresh)
  local m = redis.call('HMGET', META, 'e', 'o', 'b', 'f', 'r', 'k')
  local epoch, top, base, floor = m[1], tonumber(m[2] or '0'), tonumber(m[3] or '0'), tonumber(m[4] or '0')
  if epoch and m[5] == RUN and (epoch == seen_epoch and top >= seen and not m[6] or seen_epoch == '') then
    return epoch, top, base, floor
  end

  if not epoch then
    -- New tenant, FLUSHALL, or a deleted meta hash: go on above everything known of.
    local last = redis.call('ZREVRANGE', HEADS, 0, 0, 'WITHSCORES')
    top = math.max(seen, tonumber(last[2] or '0'))
    redis.call('HSET', META, 'e', fresh, 'o', text(top), 'b', text(top), 'f', text(top), 'r', RUN)
    if seen_epoch ~= '' then redis.call('HSET', META, 'l', ended('', seen_epoch, top)) end
    return fresh, top, top, top
  end

  if m[5] ~= RUN then
    -- Another server process wrote last. A tail of what it acknowledged may be missing here: skip far above it, so that
    -- no offset is given twice before those who saw that tail come back, and remember where it would have been.
    local high = top + JUMP
    redis.call('HSET', META, 'o', text(high), 'r', RUN, 'k', push(redis.call('HGET', META, 'k'), text(top) .. ':' .. text(high)))
    top = high
  end

  local lost = false
  if seen_epoch == epoch then
    lost = seen > top
    for low, high in string.gmatch(redis.call('HGET', META, 'k') or '', '(%d+):(%d+)') do
      lost = lost or (tonumber(low) < seen and seen < tonumber(high))
    end
  elseif seen_epoch ~= '' then
    local at = string.match(' ' .. (redis.call('HGET', META, 'l') or ''), ' ' .. seen_epoch .. '=(%d+)')
    lost = not at or tonumber(at) < seen
  end
  if not lost then return epoch, top, base, floor end

  base = math.max(top, seen)
  local lineage = ended(redis.call('HGET', META, 'l'), epoch, base)
  if seen_epoch ~= epoch then lineage = ended(lineage, seen_epoch, base) end
  redis.call('HDEL', META, 'k')
  redis.call('HSET', META, 'e', fresh, 'o', text(base), 'b', text(base), 'f', text(base), 'l', lineage)
  return fresh, base, base, base
end
