-- Says where the log is, and sees to it that it lies above what a node knows.
--
-- KEYS: stream, newest, floor, lost. ARGV: the node's last position, as ms and n; 1 to set a mark
--       because what the node had last is not in this log.
-- Answers: the newest entry's running number and id, the floor, and what had to be done:
--   'as it was', 'made' (there was no log: its first entry is a mark at the floor), 'raised'
--   (the log ended below what the node has delivered: a mark lifts it, for positions never go
--   back), or 'lost' (the mark that was asked for).
local stream, newest_key, floor_key, lost_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local known = ARGV[1] .. '-' .. ARGV[2]

local function after(ms, n)
  if #n > 15 then
    return string.format('%.0f', tonumber(ms) + 1), '1'
  end
  return ms, string.format('%.0f', tonumber(n) + 1)
end

local newest = redis.call('GET', newest_key)
local is_there = redis.call('EXISTS', stream) == 1
local sequence = newest and string.match(newest, '^%d+')
local ms, n = '0', '0'
if is_there then
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      ms, n = string.match(info[i + 1], '^(%d+)-(%d+)$')
    end
  end
end

local function mark(why)
  redis.call('XADD', stream, ms .. '-' .. n, 's', sequence, 'm', why)
  redis.call('SET', newest_key, sequence .. ' ' .. ms .. '-' .. n)
  return why
end

local done = 'as it was'
if not sequence or not is_there then
  local time = redis.call('TIME')
  -- No earlier log counted as far: that would take a million events a second for ever.
  sequence = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
  local now_ms = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  if is_above(known, ms .. '-' .. n) then ms, n = ARGV[1], ARGV[2] end
  if is_above(now_ms .. '-0', ms .. '-' .. n) then ms, n = now_ms, '1' else ms, n = after(ms, n) end
  done = mark('made')
  redis.call('SET', floor_key, ms .. '-' .. n)
else
  local is_behind = is_above(known, ms .. '-' .. n)
  if is_behind or ARGV[3] == '1' then
    if is_behind then ms, n = ARGV[1], ARGV[2] end
    ms, n = after(ms, n)
    sequence = string.format('%.0f', tonumber(sequence) + 1)
    done = mark(is_behind and 'raised' or 'lost')
    redis.call('SET', lost_key, ms .. '-' .. n)
  end
  -- Redis has lost the floor, and no node knows it: what lies before is not promised.
  if redis.call('EXISTS', floor_key) == 0 then redis.call('SET', floor_key, ms .. '-' .. n) end
end
return {sequence, ms .. '-' .. n, redis.call('GET', floor_key) or '0-0', done}
