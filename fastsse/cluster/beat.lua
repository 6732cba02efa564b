-- A node reports that it is alive, reads which others are, and may get a dead node to remove.
--
-- KEYS: nodes, dead, heard. ARGV: key prefix, node, ms that it may be silent, '1' when it appears
--       under this name for the first time ('0' again, '' when it leaves), the name that it had
--       before ('' for none), ms for which a dead node is its task, 0 when it can't take any, the
--       newest format of records that it reads.
-- Answers: 'here', 'gone' (it counted as dead, or Redis has lost it: it must take another
--       name), or 'wait' (the entries of its earlier name are still being removed); the dead node
--       that is its task now ('' for none); the names of all that are alive; the format of records
--       that is written from now on: the newest that all of them read. Nodes of an earlier version
--       do not name one, and read format 1.
--
-- A pause in which no node reported counts for none: Redis was away then, or its clock jumped.
local nodes, dead, heard = KEYS[1], KEYS[2], KEYS[3]
local prefix, node, life_ms, kind, before = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local task_ms = tonumber(ARGV[6])
local formats, format_key = prefix .. 'formats', prefix .. 'format'
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local silence_ms = now_ms - tonumber(redis.call('GET', heard) or now_ms)
if math.abs(silence_ms) > life_ms * 0.375 then
  for _, other in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    redis.call('ZINCRBY', nodes, silence_ms, other)
  end
end
if silence_ms < 0 then
  for _, other in ipairs(redis.call('ZRANGE', dead, 0, -1)) do
    redis.call('ZADD', dead, 0, other)
  end
end
redis.call('SET', heard, string.format('%.0f', now_ms))

-- A dead node without streams needs no other node to remove them.
local function bury(other)
  redis.call('ZREM', nodes, other)
  redis.call('HDEL', formats, other)
  if redis.call('EXISTS', prefix .. 'held:' .. other) == 1 then
    redis.call('ZADD', dead, 0, other)
  else
    redis.call('HDEL', prefix .. 'counts', other)
  end
end

for _, other in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', now_ms)) do
  bury(other)
end
if kind == '' then
  bury(node)
  return {'gone', '', {}, redis.call('GET', format_key) or '1'}
end

local task = ''
if task_ms > 0 then
  task = redis.call('ZRANGEBYSCORE', dead, '-inf', now_ms, 'LIMIT', 0, 1)[1] or ''
  if task ~= '' then redis.call('ZADD', dead, now_ms + task_ms, task) end
end

local answer = 'here'
if kind == '1' then
  if before ~= '' and redis.call('ZSCORE', dead, before) then answer = 'wait' end
elseif not redis.call('ZSCORE', nodes, node) then
  answer = 'gone'
end
if answer == 'here' then
  redis.call('ZADD', nodes, now_ms + life_ms, node)
  redis.call('HSET', formats, node, ARGV[7])
end

local alive = redis.call('ZRANGE', nodes, 0, -1)
local common = tonumber(ARGV[7])
for first = 1, #alive, 1000 do
  local read = redis.call('HMGET', formats, unpack(alive, first, math.min(first + 999, #alive)))
  for i = 1, #read do common = math.min(common, tonumber(read[i] or '1')) end
end
if redis.call('HLEN', formats) > #alive + 16 then
  for _, other in ipairs(redis.call('HKEYS', formats)) do
    if not redis.call('ZSCORE', nodes, other) then redis.call('HDEL', formats, other) end
  end
end
local format = string.format('%.0f', common)
if (redis.call('GET', format_key) or '1') ~= format then redis.call('SET', format_key, format) end
return {answer, task, alive, format}
