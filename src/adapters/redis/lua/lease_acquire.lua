-- Takes a lock, or renews it for who holds it. The same token again is no rival, so a lost answer is repeated with it.
-- KEYS[1]  the lock
-- ARGV[1]  the token of who wants it
-- ARGV[2]  how long it holds, in milliseconds
-- Answer:  1 when the token holds the lock now, 0 when another does
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
