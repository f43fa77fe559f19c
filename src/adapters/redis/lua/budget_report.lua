-- A writer tells what its writes met, and is told the fleet's budget and between how many it is shared.
-- KEYS[1]  what all writers met since the leader last looked
-- KEYS[2]  the writers, by when they last reported on the server's clock, in milliseconds
-- KEYS[3]  the budget as published
-- ARGV[1]  the writer
-- ARGV[2]  packs written since its last report
-- ARGV[3]  writes that were refused or not answered
-- ARGV[4]  its slowest write, in microseconds
-- ARGV[5]  how long a writer counts as alive after a report, in milliseconds
-- Answer:  {budget, writers}: the budget as text, empty when none is published; the writers alive, this one included
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local alive = tonumber(ARGV[5])
redis.call('HINCRBY', KEYS[1], 'packs', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'overloads', ARGV[3])
if tonumber(ARGV[4]) > tonumber(redis.call('HGET', KEYS[1], 'slowest') or '0') then
  redis.call('HSET', KEYS[1], 'slowest', ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], alive * 20)
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - alive - 1)
-- A server whose clock went back would count the dead for as long as it went.
redis.call('ZREMRANGEBYSCORE', KEYS[2], now + alive, '+inf')
redis.call('PEXPIRE', KEYS[2], alive * 20)
return {redis.call('GET', KEYS[3]) or '', redis.call('ZCARD', KEYS[2])}
