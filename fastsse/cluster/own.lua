-- A node asks to own the values of a subject, goes on owning them, or gives them up.
--
-- KEYS: the owner, a count of owners.
-- ARGV: node, its mark as the owner ('' for none), ms that it may be silent, 0 when it gives up.
-- Answers: the mark of the owner, its node and a number that only rises; '' for none.
local mark, life_ms = redis.call('GET', KEYS[1]), tonumber(ARGV[3])
if mark and mark == ARGV[2] then
  if life_ms == 0 then
    redis.call('DEL', KEYS[1])
    return ''
  end
  redis.call('PEXPIRE', KEYS[1], life_ms)
elseif not mark and life_ms > 0 then
  mark = ARGV[1] .. ' ' .. string.format('%.0f', redis.call('INCR', KEYS[2]))
  redis.call('SET', KEYS[1], mark, 'PX', life_ms)
end
return mark or ''
