-- The newest stored events of topics, at most so many of each, and bytes in all.
-- ARGV: key prefix, the id up to which, how many, bytes, topics.
-- Answers: whether the bytes were enough, then id, record, id, record, ….

local answer, wanted, room = {1}, tonumber(ARGV[3]), tonumber(ARGV[4])
for t = 5, #ARGV do
  local older, taken, step = older_entries(ARGV[1], ARGV[t]), 0, math.min(wanted, 64)
  while taken < wanted and room > 0 do
    local found = older(step)
    if #found == 0 then break end
    for i = #found, 1, -1 do
      local id, record = string.match(found[i], '^(%d+%-%d+) %d+%-%d+ (.*)$')
      local is_control = string.find(record, '^{"o":') or string.find(record, '^{"c":"%x+","w":%d+,"o":')
      if not is_control and taken < wanted and room > 0 and not is_above(id, ARGV[2]) then
        answer[#answer + 1], answer[#answer + 2] = id, record
        taken, room = taken + 1, room - #record
      end
    end
  end
  if room <= 0 then
    answer[1] = 0
    break
  end
end
return answer
