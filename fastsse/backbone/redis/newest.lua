-- The ids of the newest stored events of topics, newest first, at most so many of each.
-- ARGV: key prefix, the id up to which, how many, topics.

local answer, wanted = {}, tonumber(ARGV[3])
for t = 4, #ARGV do
  local older, taken = older_entries(ARGV[1], ARGV[t]), 0
  while taken < wanted do
    local found = older(64)
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
  end
end
return answer
