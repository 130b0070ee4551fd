-- In front of every script of this room; behind lua/fence.lua of the bus (PREFIX, text). Users and conversations
-- are key parts (percent-encoded), message ids raw.
--   c:r:<conversation>  hash    v revision · n last sequence number · t its time, Unix ms · k token of the last
--                               change of participants · d what it did (msgpack)
--   c:p:<conversation>  hash    participant → sequence number read
--   c:f:<conversation>  zset    who left lately → when, Unix ms
--   c:m:<conversation>  stream  <seq>-0 → i id, t saved, Unix ms, b body
--   c:i:<conversation>  hash    message id → sequence number, of those in the stream
--   c:u:<user>          zset    conversations, by name
local C = PREFIX .. 'c:'

local function unix_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- [revision, participants, who left lately]
local function people(room, former_ms)
  local since = '(' .. text(unix_ms() - former_ms)
  return {redis.call('HGET', C .. 'r:' .. room, 'v'), redis.call('HKEYS', C .. 'p:' .. room),
    redis.call('ZRANGEBYSCORE', C .. 'f:' .. room, since, '+inf')}
end

local function seq_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

-- Up to which sequence number nothing is kept any more.
local function gone(room, last)
  local oldest = redis.call('XRANGE', C .. 'm:' .. room, '-', '+', 'COUNT', 1)
  if not oldest[1] then return last end
  return seq_of(oldest[1]) - 1
end
