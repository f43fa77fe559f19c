-- The leader takes what the writers met since it last looked; any process may read the budget without taking anything.
-- KEYS[1]  what all writers met
-- KEYS[2]  the budget as published
-- ARGV[1]  '1' to take what was met, '0' to leave it
-- Answer:  {packs, overloads, slowest, budget}: numbers (the slowest write in microseconds), and the budget as text, empty
--          when none is published; the numbers are 0 when nothing is taken
local met = {0, 0, 0}
if ARGV[1] == '1' then
  local stored = redis.call('HMGET', KEYS[1], 'packs', 'overloads', 'slowest')
  redis.call('DEL', KEYS[1])
  for at = 1, 3 do
    met[at] = tonumber(stored[at] or '0') or 0
  end
end
return {met[1], met[2], met[3], redis.call('GET', KEYS[2]) or ''}
