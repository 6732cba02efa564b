-- Says where the log is, and sees to it that it lies above what a node knows.
--
-- KEYS: stream, sequence, floor. ARGV: the node's last position, as ms and n; 1 to set a mark
--       because what the node had last is not in this log.
-- Answers: the newest entry's running number and id, the floor, and what had to be done:
--   'as it was', 'made' (there was no log: its first entry is a mark at the floor), or 'raised'
--   (the log ended below what the node has delivered: a mark lifts it, for positions never go back).
local stream, sequence_key, floor_key = KEYS[1], KEYS[2], KEYS[3]

local function is_above(ms, n, other_ms, other_n)
  if ms ~= other_ms then
    if #ms ~= #other_ms then return #ms > #other_ms end
    return ms > other_ms
  end
  if #n ~= #other_n then return #n > #other_n end
  return n > other_n
end

local function after(ms, n)
  if n == '18446744073709551615' then
    return string.format('%.0f', tonumber(ms) + 1), '0'
  end
  if #n > 15 then  -- More than a double counts exactly: go on in the next millisecond.
    return string.format('%.0f', tonumber(ms) + 1), '0'
  end
  return ms, string.format('%.0f', tonumber(n) + 1)
end

local sequence = redis.call('GET', sequence_key)
local ms, n = '0', '0'
local is_there = redis.call('EXISTS', stream) == 1
if is_there then
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      ms, n = string.match(info[i + 1], '^(%d+)-(%d+)$')
    end
  end
end

local done = 'as it was'
local known_ms, known_n = ARGV[1], ARGV[2]
if not sequence or not is_there then
  local time = redis.call('TIME')
  -- No earlier log counted as far: that would take a million events a second for ever.
  sequence = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
  if is_above(known_ms, known_n, ms, n) then ms, n = known_ms, known_n end
  local now_ms = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  if is_above(now_ms, '0', ms, n) then ms, n = now_ms, '0' else ms, n = after(ms, n) end
  redis.call('XADD', stream, ms .. '-' .. n, 's', sequence, 'm', 'made')
  redis.call('SET', sequence_key, sequence)
  redis.call('SET', floor_key, ms .. '-' .. n)
  done = 'made'
elseif is_above(known_ms, known_n, ms, n) then
  ms, n = after(known_ms, known_n)
  sequence = string.format('%.0f', tonumber(sequence) + 1)
  redis.call('XADD', stream, ms .. '-' .. n, 's', sequence, 'm', 'raised')
  redis.call('SET', sequence_key, sequence)
  done = 'raised'
elseif ARGV[3] == '1' then
  sequence = string.format('%.0f', tonumber(sequence) + 1)
  ms, n = string.match(redis.call('XADD', stream, '*', 's', sequence, 'm', 'lost'), '^(%d+)-(%d+)$')
  redis.call('SET', sequence_key, sequence)
  done = 'lost'
end
return {sequence, ms .. '-' .. n, redis.call('GET', floor_key) or '0-0', done}
