-- The ids of the newest stored events of topics, newest first, at most so many of each.
-- ARGV: key prefix, the id up to which, how many, topics.
local answer = {}
for t = 4, #ARGV do
  local found = redis.call('XREVRANGE', ARGV[1] .. 'topic:' .. ARGV[t], ARGV[2], '-', 'COUNT', ARGV[3])
  for i = 1, #found do
    answer[#answer + 1] = found[i][1]
  end
end
return answer
