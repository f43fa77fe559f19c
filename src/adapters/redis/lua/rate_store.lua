-- Stores the state of an account's rate, unless somebody else did since it was read.
-- A new state's sequence begins with the server's clock, so that no sequence of a lost state comes again.
-- KEYS[1]  the account's state
-- ARGV[1]  the sequence it was read under; empty when there was none
-- ARGV[2]  the new state
-- ARGV[3]  how long it is kept, in milliseconds
-- Answer:  {stored, sequence, state, seconds, microseconds}, all as text: '1' and nothing more to read when it was stored;
--          '0' and what `rate_load` would answer when somebody was faster
local time = redis.call('TIME')
local stored = redis.call('HMGET', KEYS[1], 'sequence', 'state')
local sequence = stored[1] or ''
if sequence ~= ARGV[1] then
  return {'0', sequence, stored[2] or '', time[1], time[2]}
end
if sequence == '' then
  redis.call('HSET', KEYS[1], 'sequence', time[1] .. string.format('%06d', time[2]), 'state', ARGV[2])
else
  redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  redis.call('HSET', KEYS[1], 'state', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'1', '', '', time[1], time[2]}
