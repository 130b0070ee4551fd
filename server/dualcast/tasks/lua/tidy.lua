-- Removes some of what retention has ended. ARGV[1]: msgpack [keep_finished, keep_unfinished]. Reply: the channels.
local keep_finished, keep_unfinished = unpack(cmsgpack.unpack(ARGV[1]))
return tidy(clock(), keep_finished, keep_unfinished)
