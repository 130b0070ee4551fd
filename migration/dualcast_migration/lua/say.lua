-- Publishes copies on the names of older backends, once, and keeps their set of online users.
-- ARGV[1]: msgpack [token, keep_s, group, items]; ARGV[2 …]: payloads, one per item that publishes, in order.
-- Items: {'p', channel, hash ('' : it says itself whose it is)} publishes · {'w', user, user key part, 1 online or 0}
-- publishes on ws:presence · {'s', user, user key part, spare} puts back a user with more than `spare` connections in
-- the group.
-- A call that comes again with its token does nothing. Reply: how many older and newer programs got a copy in all.
local call = redis.call
local token, keep, group, items = unpack(cmsgpack.unpack(ARGV[1]))
local O = PREFIX .. 'o:'
if not call('SET', O .. 'k:' .. token, '1', 'NX', 'EX', 60) then return 0 end
local MEMBERS = PREFIX .. 'w:g:' .. group
local ONLINE = 'ws:online_users'
local at, reached = 2, 0

for _, item in ipairs(items) do
  local kind = item[1]
  if kind == 'p' then
    -- Before the message: who hears it asks for the mark.
    if item[3] ~= '' then call('SET', O .. 'y:' .. item[3], '1', 'EX', keep) end
    reached = reached + call('PUBLISH', item[2], ARGV[at])
    at = at + 1
  elseif kind == 'w' then
    -- Changes of several nodes may come here in another order than they happened: only what is still so is said.
    local present = call('HEXISTS', MEMBERS, item[3]) == 1
    if present and item[4] == 1 then
      call('SADD', ONLINE, item[2])
      reached = reached + call('PUBLISH', 'ws:presence', ARGV[at])
    elseif not present and item[4] == 0 then
      call('SREM', ONLINE, item[2])
      reached = reached + call('PUBLISH', 'ws:presence', ARGV[at])
    end
    at = at + 1
  elseif tonumber(call('HGET', MEMBERS, item[3]) or '0') > item[4] then
    call('SADD', ONLINE, item[2])
  end
end
return reached
