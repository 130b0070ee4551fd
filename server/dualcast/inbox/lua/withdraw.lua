-- ARGV[1]: msgpack [id, token]. Takes a tenant-wide item out of every inbox. Reply: the new tenant revision, or 0: there is
-- none. A call whose reply was lost finds its own token when it is repeated.
local id, token = unpack(cmsgpack.unpack(ARGV[1]))
enter_tenant()
if call('ZSCORE', WIDE.i, id) then
  remove(WIDE, {id})
  tenant[1] = tenant[1] + 1
  tenant[4] = token
  save_tenant()
  return tenant[1]
end
return tenant[4] == token and tenant[1] or 0
