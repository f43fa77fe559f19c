-- Reads the state of an account's rate, and the server's clock, by which the whole fleet reckons.
-- KEYS[1]  the account's state
-- Answer:  {sequence, state, seconds, microseconds}, all as text; sequence and state are empty when there is none
local stored = redis.call('HMGET', KEYS[1], 'sequence', 'state')
local time = redis.call('TIME')
return {stored[1] or '', stored[2] or '', time[1], time[2]}
