-- Evidence of a tenant's move. LEVELS, MAX_ROWS … are put in front.
--   e:f:<width>:<bucket>  hash  name → count, of so many seconds from Unix second <bucket> on
--   e:u:<width>:<bucket>  zset  marks of users, all with score 0: the smallest WINDOW_SIZE
--   e:t:<width>:<bucket>  zset  the same of users in trouble
--   e:r  zset  kind of client → last seen ms   e:c  hash  → connects   e:a  hash  → first seen ms
--   e:v:<kind>  zset  marks of its users, as above
--   e:o  hash  kind → mark of the user it came with   e:p  hash  that mark → how many kinds
--   e:n  zset  node → until when its report of live connections counts   e:l:<node>  hash  kind → live
--   e:m  zset  mismatch number → the same   e:d  hash  number → record   e:s  last number
--   e:b:<node>  the last batch of a node
local E = PREFIX .. 'e:'
local ROWS, CONNECTS, FIRST, MARKS = E .. 'r', E .. 'c', E .. 'a', E .. 'v:'
local OWNERS, OWNED = E .. 'o', E .. 'p'
local NODES, LIVE = E .. 'n', E .. 'l:'
local NUMBERS, RECORDS, LAST = E .. 'm', E .. 'd', E .. 's'

local function clock_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function add_marks(key, marks, size, keep_s)
  if #marks == 0 then return end
  for _, mark in ipairs(marks) do redis.call('ZADD', key, 0, mark) end
  redis.call('ZREMRANGEBYRANK', key, size, -1)
  redis.call('EXPIRE', key, keep_s)
end

local function forget_row(name)
  redis.call('ZREM', ROWS, name)
  redis.call('HDEL', CONNECTS, name)
  redis.call('HDEL', FIRST, name)
  redis.call('DEL', MARKS .. name)
  local owner = redis.call('HGET', OWNERS, name)
  if owner then
    redis.call('HDEL', OWNERS, name)
    if redis.call('HINCRBY', OWNED, owner, -1) <= 0 then redis.call('HDEL', OWNED, owner) end
  end
end

-- Whether a new kind of client may have a row: there is room, and one of its users has not brought too many.
local function may_add(name, marks)
  if redis.call('ZCARD', ROWS) >= MAX_ROWS then return false end
  for _, mark in ipairs(marks) do
    if tonumber(redis.call('HGET', OWNED, mark) or '0') < MAX_ROWS_PER_USER then
      redis.call('HSET', OWNERS, name, mark)
      redis.call('HINCRBY', OWNED, mark, 1)
      return true
    end
  end
  return #marks == 0
end
