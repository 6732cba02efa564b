-- Reads topics: their stored events between two places, oldest first, up to a number of bytes each.
--
-- KEYS: floor. ARGV: key prefix, the id after which, the id up to which, bytes for each topic, topics.
-- Answers: the time in ms, the floor, then for each topic: what is known of events it had and has no
-- more (the id before the oldest stored, or of the last one when none is stored; '' when nothing
-- is known), whether all up to the end were read, and the entries as id, record, id, record, ….
local prefix, after, through, budget = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local answer = {
  string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)),
  redis.call('GET', KEYS[1]) or '0-0',
}
for t = 5, #ARGV do
  local key = prefix .. 'topic:' .. ARGV[t]
  local oldest = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)
  local gone = oldest[1] and oldest[1][2][4] or redis.call('GET', prefix .. 'last:' .. ARGV[t]) or ''
  local entries, bytes, count, place, is_whole = {}, 0, 1, after, not oldest[1]
  while not is_whole and bytes < budget do
    local found = redis.call('XRANGE', key, '(' .. place, through, 'COUNT', count)
    for i = 1, #found do
      local record = found[i][2][2]
      entries[#entries + 1] = found[i][1]
      entries[#entries + 1] = record
      bytes = bytes + #record
      place = found[i][1]
    end
    is_whole = #found < count
    count = math.min(count * 2, 64)
  end
  answer[#answer + 1] = {gone, is_whole and 1 or 0, entries}
end
return answer
