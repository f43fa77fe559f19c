-- Adds to live counts.
-- KEYS[1]  the batch's counts
-- ARGV[1]  how long they are kept from now on, in milliseconds
-- ARGV[2…] pairs: a count's name, and what is added
-- Answer:  the counts named, as they are now, in the same order
local now = {}
for at = 2, #ARGV, 2 do
  now[#now + 1] = redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return now
