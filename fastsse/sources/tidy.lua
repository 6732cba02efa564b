-- Takes out the names of readers that were killed: idle for long, with nothing pending.
--
-- KEYS: stream. ARGV: group, what our names begin with, ms. Answers how many went.
local gone = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #flat, 2 do
    consumer[flat[i]] = flat[i + 1]
  end
  local is_ours = string.sub(consumer.name, 1, #ARGV[2]) == ARGV[2]
  if is_ours and consumer.pending == 0 and consumer.idle > tonumber(ARGV[3]) then
    gone = gone + redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name) + 1
  end
end
return gone
