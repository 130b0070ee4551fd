-- {now ms, {{kind, connects, first ms, last ms, marks} …}, {{kind, live …} per node}}.
local now_ms = clock_ms()
local rows, nodes = {}, {}
local found = redis.call('ZRANGEBYSCORE', ROWS, text(now_ms - ROW_S * 1000), '+inf', 'WITHSCORES')
for at = 1, #found, 2 do
  local name = found[at]
  rows[#rows + 1] = {
    name,
    redis.call('HGET', CONNECTS, name) or '0',
    redis.call('HGET', FIRST, name) or found[at + 1],
    found[at + 1],
    redis.call('ZRANGE', MARKS .. name, 0, -1),
  }
end
for _, node in ipairs(redis.call('ZRANGEBYSCORE', NODES, text(now_ms), '+inf')) do
  nodes[#nodes + 1] = redis.call('HGETALL', LIVE .. node)
end
return {text(now_ms), rows, nodes}
