-- The leader publishes the fleet's write budget.
-- KEYS[1]  the budget
-- ARGV[1]  the budget as text
-- ARGV[2]  how long it is kept, in milliseconds
-- Answer:  1
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
