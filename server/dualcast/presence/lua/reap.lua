-- ARGV: reaper, token, node, most connections. Reply: {more, deltas}
local reaper, token, node = ARGV[1], ARGV[2], ARGV[3]
local again = answered(reaper, 'r', token)
if again then return {again[3], again[2]} end
local lease = tonumber(redis.call('ZSCORE', LEASES, node) or text(NOW))
if lease >= NOW then return {0, {}} end
-- From here on the node finds its lease lost, should it come back.
redis.call('ZADD', LEASES, 0, node)
for _, connection in ipairs(redis.call('HRANDFIELD', W .. 'n:' .. node, tonumber(ARGV[4]))) do leave(node, connection) end
local found, more = {}, redis.call('EXISTS', W .. 'n:' .. node)
if more == 0 then
  -- Its last answers may not have been announced: again, under the same revision, which makes the second one harmless.
  for _, field in ipairs({'c', 'r'}) do
    local last = redis.call('HGET', W .. 'd:' .. node, field)
    local row = last and cmsgpack.unpack(last)
    if row and NOW - row[4] < FRESH_MS then
      for _, delta in ipairs(row[2]) do found[#found + 1] = delta end
    end
  end
  redis.call('ZREM', LEASES, node)
  redis.call('DEL', W .. 'd:' .. node)
end
for _, delta in ipairs(deltas()) do found[#found + 1] = delta end
remember(reaper, 'r', token, found, more)
return {more, found}
