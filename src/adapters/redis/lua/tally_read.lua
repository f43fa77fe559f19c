-- Reads live counts.
-- KEYS[1]  the counts
-- ARGV[…]  their names
-- Answer:  the counts as numbers, in the same order; 0 for one that is not there
local counts = redis.call('HMGET', KEYS[1], unpack(ARGV))
for at = 1, #ARGV do
  counts[at] = tonumber(counts[at] or '0') or 0
end
return counts
