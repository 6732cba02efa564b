-- The owner writes values. A node that is not the owner any more changes nothing.
--
-- KEYS: the owner, the values. ARGV: the mark of the owner, then for each value 's' and 'd' for set
--       and delete, its key, and the value ('' to delete).
-- Answers: 1, or 0 for another owner.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 3 do
  if ARGV[i] == 's' then
    redis.call('HSET', KEYS[2], ARGV[i + 1], ARGV[i + 2])
  else
    redis.call('HDEL', KEYS[2], ARGV[i + 1])
  end
end
return 1
