-- Gives a lock up, if it is still the token's: a late release takes nothing from the next holder.
-- KEYS[1]  the lock
-- ARGV[1]  the token
-- Answer:  1 when it was given up, 0 when the token did not hold it
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
