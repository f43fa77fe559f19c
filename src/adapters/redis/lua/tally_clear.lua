-- Forgets live counts.
-- KEYS[1]  the counts
-- Answer:  1 when there were any, 0 when not
return redis.call('DEL', KEYS[1])
