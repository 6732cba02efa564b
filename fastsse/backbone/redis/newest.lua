-- The ids of the newest stored events of topics, newest first, at most so many of each.
-- ARGV: key prefix, the id up to which, how many, topics.

local answer, wanted = {}, tonumber(ARGV[3])
for t = 4, #ARGV do
  local key = ARGV[1] .. 'topic:' .. ARGV[t]
  local at, taken = -1, 0
  while taken < wanted do
    local found = redis.call('LRANGE', key, at - 63, at)
    if #found == 0 then break end
    for i = #found, 1, -1 do
      local id = string.match(found[i], '^%d+%-%d+')
      local is_control = string.find(found[i], '^%d+%-%d+ %d+%-%d+ {"o":')
        or string.find(found[i], '^%d+%-%d+ %d+%-%d+ {"c":"%x+","w":%d+,"o":')
      if not is_control and taken < wanted and not is_above(id, ARGV[2]) then
        answer[#answer + 1] = id
        taken = taken + 1
      end
    end
    if #found < 64 then break end
    at = at - 64
  end
end
return answer
