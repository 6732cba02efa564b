-- A reader of a group ends in order: what it had and did not confirm is free at once for the next
-- one, which takes such entries first; and its name goes, when nothing hangs on it.
--
-- KEYS: stream. ARGV: group, consumer, ms that its entries count as left alone.
-- Answers how many entries it handed back.
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])
if #pending == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  return 0
end
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0}
for i = 1, #pending do
  claim[#claim + 1] = pending[i][1]
end
claim[#claim + 1], claim[#claim + 2], claim[#claim + 3] = 'IDLE', ARGV[3], 'JUSTID'
redis.call(unpack(claim))
return #pending
