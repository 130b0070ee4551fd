-- What a node noted: {node, batch, {name, count …}, marks, marks of users in trouble, {{kind, rest, connects, marks} …}, whether live, {kind, count …}, lease ms};
-- further arguments are mismatch records.
local node, ident, figures, marks, troubled, rows, has_live, live, lease_ms = unpack(cmsgpack.unpack(ARGV[1]))
local now_ms = clock_ms()
local now_s = math.floor(now_ms / 1000)
local taken = E .. 'b:' .. node
if redis.call('GET', taken) == ident then return 0 end
redis.call('SET', taken, ident, 'EX', TAKEN_S)

for _, level in ipairs(LEVELS) do
  local width, keep_s, users = level[1], level[2], level[3]
  local bucket = width .. ':' .. text(now_s - now_s % width)
  if #figures > 0 then
    local key = E .. 'f:' .. bucket
    for at = 1, #figures, 2 do redis.call('HINCRBY', key, figures[at], figures[at + 1]) end
    redis.call('EXPIRE', key, keep_s)
  end
  if users then
    add_marks(E .. 'u:' .. bucket, marks, WINDOW_SIZE, keep_s)
    add_marks(E .. 't:' .. bucket, troubled, WINDOW_SIZE, keep_s)
  end
end

if #rows > 0 then
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', ROWS, '-inf', text(now_ms - ROW_S * 1000), 'LIMIT', 0, 100)) do
    forget_row(old)
  end
  for _, row in ipairs(rows) do
    local name, rest, connects = row[1], row[2], row[3]
    if name ~= rest and not redis.call('ZSCORE', ROWS, name) and not may_add(name, row[4]) then name = rest end
    redis.call('ZADD', ROWS, text(now_ms), name)
    redis.call('HINCRBY', CONNECTS, name, connects)
    redis.call('HSETNX', FIRST, name, text(now_ms))
    add_marks(MARKS .. name, row[4], ROW_SIZE, ROW_S)
  end
  for _, key in ipairs({ROWS, CONNECTS, FIRST, OWNERS, OWNED}) do redis.call('EXPIRE', key, ROW_S) end
end

if has_live then
  local key = LIVE .. node
  redis.call('DEL', key)
  redis.call('ZREMRANGEBYSCORE', NODES, '-inf', text(now_ms))
  if #live == 0 then
    redis.call('ZREM', NODES, node)
  else
    for at = 1, #live, 2 do redis.call('HSET', key, live[at], live[at + 1]) end
    redis.call('PEXPIRE', key, lease_ms)
    redis.call('ZADD', NODES, text(now_ms + lease_ms), node)
    redis.call('PEXPIRE', NODES, lease_ms * 2)
  end
end

for at = 2, #ARGV do
  local number = text(redis.call('INCR', LAST))
  redis.call('ZADD', NUMBERS, number, number)
  redis.call('HSET', RECORDS, number, ARGV[at])
end
if #ARGV > 1 then
  for _, number in ipairs(redis.call('ZRANGE', NUMBERS, 0, -1 - MAX_MISMATCHES)) do
    redis.call('ZREM', NUMBERS, number)
    redis.call('HDEL', RECORDS, number)
  end
  for _, key in ipairs({NUMBERS, RECORDS}) do redis.call('EXPIRE', key, MISMATCH_S) end
end
return 1
