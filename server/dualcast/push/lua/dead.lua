-- Dead letters after a number. ARGV[1]: msgpack [after, limit]. Reply: [number, k, m, a, q, t, r, e] each. Expired ones are forgotten.
local after, limit = unpack(cmsgpack.unpack(ARGV[1]))
local out = {}
local low = '(' .. text(after)
while #out < limit do
  local numbers = redis.call('ZRANGEBYSCORE', DEAD, low, '+inf', 'LIMIT', 0, limit - #out)
  if #numbers == 0 then break end
  for _, number in ipairs(numbers) do
    local kept = redis.call('HMGET', LETTER .. number, 'k', 'm', 'a', 'q', 't', 'r', 'e')
    if kept[1] then
      table.insert(kept, 1, number)
      out[#out + 1] = kept
    else
      redis.call('ZREM', DEAD, number)
    end
    low = '(' .. number
  end
end
return out
