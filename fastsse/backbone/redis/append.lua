-- Stores a group of events, all or nothing, once.
--
-- KEYS: stream, sequence, the sender's counter.
-- ARGV: key prefix, group number, the counter's life in ms, events the stream keeps, age in ms that
--       the stream keeps, number of events, then for each event:
--       identity, record, own id ('' for none), ms that it is found by, number of topics,
--       then for each topic: name, events kept, ms kept, ms that its last position is known.
-- Answers: 'stored', 'repeated' when this group was stored before, 'no log' when there is none.
--
-- What can be refused (memory, rights, a replica) is refused at the first write, before anything
-- is changed. The indexes come last; one that can't be written is counted, and the rest goes on.
local stream, sequence_key, counter_key = KEYS[1], KEYS[2], KEYS[3]
local prefix, group = ARGV[1], tonumber(ARGV[2])

if group <= tonumber(redis.call('GET', counter_key) or '0') then
  return {'repeated', 0}
end
local sequence = redis.call('GET', sequence_key)
if not sequence or redis.call('EXISTS', stream) == 0 then
  return {'no log', 0}
end
sequence = tonumber(sequence)

local count = tonumber(ARGV[6])
if count == 0 then
  -- A probe: may this user write here, now? It changes nothing.
  redis.call('XADD', prefix .. 'nothing', 'NOMKSTREAM', '*', 'e', '')
end

local ids, at = {}, 7
for i = 1, count do
  sequence = sequence + 1
  ids[i] = redis.call('XADD', stream, 'MAXLEN', '~', ARGV[4], '*',
    's', string.format('%.0f', sequence), 'k', ARGV[at], 'e', ARGV[at + 1])
  at = at + 5 + 4 * tonumber(ARGV[at + 4])
end
redis.call('SET', counter_key, group, 'PX', ARGV[3])
if count == 0 then
  return {'stored', 0}
end
redis.call('SET', sequence_key, string.format('%.0f', sequence))

local failures = 0
local function index(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    failures = failures + 1
    return false
  end
  return answer
end

at = 7
for i = 1, count do
  local id, record, own_id = ids[i], ARGV[at + 1], ARGV[at + 2]
  if own_id ~= '' then
    index('SET', prefix .. 'id:' .. own_id, id, 'PX', ARGV[at + 3], 'NX')
  end
  local first = at + 5
  at = first + 4 * tonumber(ARGV[at + 4])
  for t = first, at - 1, 4 do
    local last_key, topic_key = prefix .. 'last:' .. ARGV[t], prefix .. 'topic:' .. ARGV[t]
    local before = index('SET', last_key, id, 'PX', ARGV[t + 3], 'GET')
    if ARGV[t + 1] ~= '0' then
      index('XADD', topic_key, 'MAXLEN', '~', ARGV[t + 1], id,
        'e', record, 'p', before or '0-0')
      index('PEXPIRE', topic_key, ARGV[t + 2])
    end
  end
end

local newest_ms = tonumber(string.match(ids[count], '^%d+'))
index('XTRIM', stream, 'MINID', '~', string.format('%.0f-0', newest_ms - tonumber(ARGV[5])))
return {'stored', failures}
