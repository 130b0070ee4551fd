-- {seconds, width of its buckets, whether users are told apart} → {{name, count …} per bucket, marks per bucket,
-- marks of users in trouble per bucket}.
local seconds, width, users = unpack(cmsgpack.unpack(ARGV[1]))
local now_s = clock_ms() / 1000
local figures, marks, troubled = {}, {}, {}
for bucket = math.ceil((now_s - seconds) / width) * width, now_s, width do
  local name = width .. ':' .. text(bucket)
  local found = redis.call('HGETALL', E .. 'f:' .. name)
  if #found > 0 then figures[#figures + 1] = found end
  if users then
    found = redis.call('ZRANGE', E .. 'u:' .. name, 0, -1)
    if #found > 0 then marks[#marks + 1] = found end
    found = redis.call('ZRANGE', E .. 't:' .. name, 0, -1)
    if #found > 0 then troubled[#troubled + 1] = found end
  end
end
return {figures, marks, troubled}
