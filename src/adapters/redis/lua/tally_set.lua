-- Sets live counts that are known as a whole.
-- KEYS[1]  the counts
-- ARGV[1]  how long they are kept from now on, in milliseconds
-- ARGV[2…] pairs: a count's name, and its value
-- Answer:  1
for at = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
