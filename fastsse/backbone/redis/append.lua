-- Stores a group of batches. Each batch is stored whole or not at all, and only once.
--
-- KEYS: stream, newest, the sender's counter.
-- ARGV: key prefix, group number, the counter's life in ms, events the stream keeps, age in ms that
--       the stream keeps, number of batches, how long producers are known in ms, and how many bytes
--       of them, how many bytes of durable streams, then for each batch:
--       its key ('' for none), number of events, what is asked ('' for nothing but to store it, else a
--       JSON list with an object for each event: `end`, `erase` (an id), `purge`, `key`, `expect`,
--       `request` with `digest`, `take` (a field of what control services keep),
--       `producer` with `epoch`, `sequence`, `strict`, `stream` with `op`, `g`, `s`, `row`),
--       how long keys are known in ms, and how many bytes of them, then for each event:
--       identity, record, its CRC-32C in hex, own id ('' for none), ms that it is found by, number of topics,
--       then for each topic: name, events kept, ms kept, ms that its last position is known.
-- Answers: 'stored' ('repeated' when the group was stored before, 'no log' when there is none), how
--       many index entries could not be written, for each batch of which anything was stored before
--       its number from 1, its ids, how many are known by their keys or producers, and the newest
--       sequence number of the producer of those (-1: none), and for each that is refused its number,
--       why, the topic, and what there is instead of what was expected.
--
-- If all nodes read format 2 (see beat.lua), a record is sealed. Its first fields are a checksum of
-- the record, a checksum of that with the id and the time, and the time. Nodes of earlier versions
-- ignore these.
--
-- Refusals of Redis (memory, rights, a replica) happen at the first write, before anything is
-- changed. The indexes are written last. One that can't be written is counted, and the script
-- continues.
local stream, newest_key, counter_key = KEYS[1], KEYS[2], KEYS[3]
local prefix, group = ARGV[1], tonumber(ARGV[2])

if group <= tonumber(redis.call('GET', counter_key) or '0') then
  return {'repeated', 0, {}, {}}
end
local newest = redis.call('GET', newest_key)
if not newest or redis.call('EXISTS', stream) == 0 then
  return {'no log', 0, {}, {}}
end
local sequence, ms, n = string.match(newest, '^(%d+) (%d+)-(%d+)$')
local newest_before = ms .. '-' .. n
sequence, ms, n = tonumber(sequence), tonumber(ms), tonumber(n)

local batches = tonumber(ARGV[6])
if batches == 0 then
  -- A probe: may this user write here, now? It changes nothing.
  redis.call('XADD', prefix .. 'nothing', 'NOMKSTREAM', '*', 'e', '')
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local now = string.format('%.0f', now_ms)
local is_sealed = redis.call('GET', prefix .. 'format') == '2'

-- Nodes that read only format 1 skip a record with a member that they do not know. The kind of its
-- data stands last, where no text can look like it.
local function unsealed(record)
  return (string.gsub(record, ',"k":%d}$', '}'))
end

local function seal(id, record, crc)
  if not is_sealed then return unsealed(record) end
  local sum = string.sub(redis.sha1hex(id .. ' ' .. crc .. ' ' .. now), 1, 8)
  return '{"c":"' .. crc .. sum .. '","w":' .. now .. ',' .. string.sub(record, 2)
end

-- An id above all others, by Redis's clock; n begins at 1, so that the place before the first
-- event of a millisecond is never another's. Redis itself gives one when an entry that is not
-- ours was put above our last.
local function add(identity, record, crc)
  sequence = sequence + 1
  if now_ms > ms then ms, n = now_ms, 1 else n = n + 1 end
  local running = string.format('%.0f', sequence)
  local id = string.format('%.0f-%.0f', ms, n)
  local sealed = seal(id, record, crc)
  local answer = redis.pcall('XADD', stream, 'MAXLEN', '~', ARGV[4], id,
    's', running, 'k', identity, 'e', sealed)
  if type(answer) == 'table' then
    record = unsealed(record)
    if not string.find(answer.err, 'equal or smaller', 1, true) then return answer end
    answer = redis.pcall('XADD', stream, 'MAXLEN', '~', ARGV[4], '*',
      's', running, 'k', identity, 'e', record)
    if type(answer) == 'table' then return answer end
    sealed = record
    local given_ms, given_n = string.match(answer, '^(%d+)-(%d+)$')
    ms, n = tonumber(given_ms), tonumber(given_n)
  end
  return answer, sealed
end

-- The ends of topics: in Redis, and of this group.
local some_ended, ended = redis.call('EXISTS', prefix .. 'ends') == 1, {}
local function ended_at(topic)
  if ended[topic] == nil then
    ended[topic] = some_ended and redis.call('GET', prefix .. 'ended:' .. topic) or false
  end
  return ended[topic]
end

-- Keys of publishers. Their bytes are counted by the minute of their use.
local used, last, key_bytes = {}, {}, 0
local function known_key(key)
  return used[key] or redis.call('GET', prefix .. 'key:' .. key)
end

local function bytes_key(minute) return prefix .. 'keybytes:' .. string.format('%.0f', minute) end

local function has_room(bytes, window_ms, limit)
  local minute, total = math.floor(now_ms / 60000), bytes
  for m = minute - math.ceil(window_ms / 60000), minute do
    total = total + tonumber(redis.call('GET', bytes_key(m)) or '0')
  end
  return total <= limit
end

-- Producers: in Redis a hash with the newest append of each ("epoch sequence id used-ms"), when each
-- was used, and the bytes of all; and what the batches of this group have changed. What is too old is
-- forgotten a little with each group that has producers.
local producers_key, used_key, size_key = prefix .. 'producers', prefix .. 'producers:used', prefix .. 'producers:bytes'
local producer_window_ms, producers_limit = tonumber(ARGV[7]), tonumber(ARGV[8])
local rows, rows_bytes, has_producers = {}, 0, false

local function row_of(key)
  if rows[key] == nil then
    rows[key] = false
    local found = redis.call('HGET', producers_key, key)
    if found then
      local epoch, sequence, id, used_ms = string.match(found, '^(%d+) (%d+) (%S+) (%d+)$')
      if tonumber(used_ms) + producer_window_ms > now_ms then
        rows[key] = {epoch = tonumber(epoch), sequence = tonumber(sequence), id = id}
      end
    end
  end
  return rows[key]
end

local function forget_old_producers()
  local old = redis.call('ZRANGEBYSCORE', used_key, '-inf',
    string.format('%.0f', now_ms - producer_window_ms), 'LIMIT', 0, 100)
  for i = 1, #old do
    redis.call('HDEL', producers_key, old[i])
    redis.call('ZREM', used_key, old[i])
    redis.call('DECRBY', size_key, 280 + #old[i])
  end
end

local function has_room_for_producers(bytes)
  return tonumber(redis.call('GET', size_key) or '0') + rows_bytes + bytes <= producers_limit
end

-- The row that makes an append a repeat, nil when it is new; or false, why it is refused, and what
-- there is instead. A row from before the stream was created is of an earlier stream of this name.
local function judge_producer(wants, row)
  if row and wants.stream and type(row.id) == 'string' and is_above(wants.stream.g, row.id) then
    row = nil
  end
  if row and wants.epoch < row.epoch then return false, 'fenced', string.format('%.0f', row.epoch) end
  local expected = row and wants.epoch == row.epoch and row.sequence + 1 or 0
  if row and wants.epoch == row.epoch and wants.sequence < expected then return row end
  if wants.strict and wants.sequence ~= expected then
    return false, 'gap', string.format('%.0f %.0f %s', expected, wants.sequence,
      row and string.format('%.0f', row.epoch) or '')
  end
  return nil
end

local BLANK = '{"o":"blank"}'

-- Whether a record of a topic's list is a control entry. A deleted event is none.
local function is_control(record)
  return record ~= BLANK and (string.sub(record, 1, 6) == '{"o":"'
    or string.find(record, '^{"c":"%x+","w":%d+,"o":') ~= nil)
end

-- The newest event of a topic that `newest` is the newest entry of; false for none that is stored.
local function before_controls(topic, newest)
  local older = older_entries(prefix, topic)
  local found = older(64)
  if #found == 0 or is_above(newest, found[#found]) then return newest end
  while #found > 0 do
    for i = #found, 1, -1 do
      local id, record = string.match(found[i], '^(%d+%-%d+) %d+%-%d+ (.*)$')
      if not is_control(record) then return id end
    end
    found = older(64)
  end
  return false
end

-- Durable streams: in Redis a hash with the row of each, and the bytes of all; and what the batches of
-- this group have changed. See `fastsse/streamstate.py` and `fastsse/backbone/stream_rows.py`.
local streams_key, streams_size_key = prefix .. 'streams', prefix .. 'streams:bytes'
local has_streams = redis.call('EXISTS', streams_key) == 1
local streams_limit, stream_rows, changed_streams, streams_more = tonumber(ARGV[9]), {}, {}, 0

local function stream_at(topic)
  if stream_rows[topic] == nil then
    local found = has_streams and redis.call('HGET', streams_key, topic)
    stream_rows[topic] = found and cjson.decode(found) or false
  end
  return stream_rows[topic]
end

local function set_stream(topic, row)
  local before = stream_at(topic)
  streams_more = streams_more + (row and row.b or 0) - (before and before.b or 0)
  stream_rows[topic], changed_streams[topic] = row, true
end

local function copy(row)
  local made = {}
  for name, value in pairs(row) do made[name] = value end
  return made
end

local function is_expired(row)
  local config = cjson.decode(row.c)
  return config.expires and config.expires <= now_ms or config.ttl and row.m + config.ttl * 1000 <= now_ms
end

-- What this group has stored: id, place of the arguments, record, what is asked.
local stored = {}

local function topics_at(place)
  local topics = {}
  for t = place + 6, place + 5 + 4 * tonumber(ARGV[place + 5]), 4 do topics[#topics + 1] = ARGV[t] end
  return topics
end

-- The topics of an event that has several, from its record; none for others, and for deleted ones.
local function shared_topics(record)
  if record == BLANK or is_control(record) or string.find(record, '"t":%["[^"\\]*"%]') then return {} end
  local read, event = pcall(cjson.decode, record)
  return read and event.t or {}
end

-- Which of these topics is a stream that has the event with an id as content; nil for none.
local function stream_of(get, topics, id)
  for _, topic in ipairs(topics) do
    local row = get(topic)
    if row and is_above(id, row.g) then return topic end
  end
end

-- A stream that has an event of a topic as content; nil for none. O(events).
local function stream_with(get, topic)
  for i = 1, #stored do
    local topics, is_of_topic = topics_at(stored[i][2]), false
    for _, one in ipairs(topics) do is_of_topic = is_of_topic or one == topic end
    local is_event = is_of_topic and not (stored[i][4] or {}).control
    local stream = is_event and stream_of(get, topics, stored[i][1])
    if stream then return stream end
  end
  local key, at = prefix .. 'topic:' .. topic, 0
  local found = redis.call('LRANGE', key, 0, 63)
  while #found > 0 do
    for i = 1, #found do
      local id, record = string.match(found[i], '^(%d+%-%d+) %d+%-%d+ (.*)$')
      local stream = stream_of(get, shared_topics(record), id)
      if stream then return stream end
    end
    at = at + #found
    found = redis.call('LRANGE', key, at, at + 63)
  end
end

-- Why an event may not be stored, for what it asks of a stream, or for the streams that its topics are.
local function stream_objection(get, wants, place)
  local topic, ask = ARGV[place + 6], wants.stream
  local row = ask and get(topic)
  if ask and ask.op == 'create' then
    local source = ask.row.p ~= '' and get(ask.row.p)
    local is_wrong = ask.row.p ~= '' and (not source or source.g ~= ask.row.pg or source.d == 1)
    if row or is_wrong then return 'stream_changed', topic end
  elseif ask and (not row or row.g ~= ask.g) then
    return 'stream_changed', topic
  elseif ask and ask.op == 'append' then
    if row.d == 1 or is_expired(row) then return 'stream_changed', topic end
    if ask.s and row.s ~= '' and ask.s <= row.s then return 'stream_seq', topic end
  elseif ask and (ask.op == 'hide') ~= (row.r > 0) then
    return 'stream_changed', topic
  end
  local kind = string.match(ARGV[place + 1], ',"k":(%d)}$') or '0'
  for t = place + 6, place + 5 + 4 * tonumber(ARGV[place + 5]), 4 do
    local at = get(ARGV[t])
    local changes = wants.erase or wants.purge or string.find(ARGV[place + 1], '^{"x":')
    if at and changes then return 'stream_immutable', ARGV[t] end
    local stream = wants.purge and stream_with(get, ARGV[t])
    if stream then return 'stream_immutable', stream end
    at = not wants.control and at
    if at and at.k == 'json' and kind ~= '1' then return 'stream_type', ARGV[t], 'application/json' end
  end
end

local function count_fork(get, set, row, count)
  local source = row.p ~= '' and get(row.p)
  if source and source.g == row.pg then
    source = copy(source)
    source.r = math.max(0, source.r + count)
    set(row.p, source)
  end
end

-- Changes the rows for an event that gets this id.
local function change_streams(get, set, wants, place, id)
  local ask, topic = wants.stream, ARGV[place + 6]
  if ask and ask.op == 'create' then
    local row = copy(ask.row)
    row.g, row.m = id, now_ms
    if row.t == '' then row.t = id end
    set(topic, row)
    count_fork(get, set, row, 1)
  elseif ask and ask.op == 'hide' then
    local row = copy(get(topic))
    row.d = 1
    set(topic, row)
  elseif ask and ask.op == 'drop' then
    local row = get(topic)
    set(topic, false)
    count_fork(get, set, row, -1)
  else
    for t = place + 6, place + 5 + 4 * tonumber(ARGV[place + 5]), 4 do
      local row = (wants['end'] or not wants.control) and get(ARGV[t])
      if row then
        row = copy(row)
        row.m = now_ms
        if wants['end'] then row.x = id else row.t, row.b = id, row.b + #ARGV[place + 1] + 128 end
        if ask and ask.s and ARGV[t] == topic then row.s = ask.s end
        set(ARGV[t], row)
      end
    end
  end
end

-- The id of a topic's newest event; false for none.
local function last_of(topic)
  if last[topic] == nil then
    local newest = redis.call('GET', prefix .. 'last:' .. topic)
    last[topic] = newest and before_controls(topic, newest) or false
  end
  return last[topic]
end

local function is_as_expected(topic, wants)
  local newest = last_of(topic)
  if wants.expect == 'earliest' then return not newest end
  local id = wants.own and redis.call('GET', prefix .. 'id:' .. wants.expect) or wants.expect
  return newest and newest == id
end

-- What a request with a key brought; nil when the key is new, false when it was another request.
local function known_request(asked, count)
  local found = known_key('r' .. asked.request)
  if not found then return nil end
  local digest, ids = string.match(found, '^(%x+) (.*)$')
  local known = {}
  for id in string.gmatch(ids, '%S+') do known[#known + 1] = id end
  return digest == asked.digest and #known == count and known
end

-- The last end of the topics of an event, where all have ended; else false.
local function end_of(place, topics, closing)
  local last_end, all_ended = false, true
  for t = place + 6, place + 5 + 4 * topics, 4 do
    local closed = ended_at(ARGV[t])
    if not closed then all_ended = false
    elseif not last_end or is_above(closed, last_end) then last_end = closed end
    closing[ARGV[t]] = true
  end
  return all_ended and last_end
end

-- What is to be done with the events of a batch that begin at an argument: for each the id that it
-- has already (or the number of the event of this batch with the same key), or false; or nil, why it
-- is refused, its topic, and what there is instead. Behind that the first producer of a repeat.
local function judge(from, count, asked, window_ms, limit)
  local known, closing, fresh, newest, place, bytes = {}, {}, {}, {}, from, 0
  local appended, added, repeater = {}, 0, nil
  local overlay, more = {}, 0
  local function get(topic)
    if overlay[topic] ~= nil then return overlay[topic] end
    return stream_at(topic)
  end
  local function set(topic, row)
    local before = get(topic)
    more = more + (row and row.b or 0) - (before and before.b or 0)
    overlay[topic], has_streams = row, true
  end
  if asked and asked[1].request then
    local found = known_request(asked[1], count)
    if found == false then return nil, 'key_reused', ARGV[from + 6], '' end
    if found then return found end
    bytes = 320 + #asked[1].request + 48 * (count - 1)
  end
  for i = 1, count do
    local topics, id, wants = tonumber(ARGV[place + 5]), false, asked and asked[i] or {}
    if wants.take and redis.call('HEXISTS', prefix .. 'delayed', wants.take) == 0 then
      return nil, 'taken', ARGV[place + 6], ''
    end
    if wants.producer then
      local mine, found, why, instead = appended[wants.producer], nil, nil, nil
      if not (mine and mine.epoch == wants.epoch and mine.sequence == wants.sequence) then
        local row = mine or row_of(wants.producer)
        if not row then added = added + 280 + #wants.producer end
        found, why, instead = judge_producer(wants, row)
        if why then return nil, why, ARGV[place + 6], instead end
      end
      if found then
        id = found.id
        repeater = repeater or wants.producer
      else
        appended[wants.producer] = {epoch = wants.epoch, sequence = wants.sequence, id = i}
      end
    end
    if wants.key then
      id = fresh[wants.key] or known_key('e' .. wants.key) or false
      if not id then
        fresh[wants.key] = i
        bytes = bytes + 320 + #wants.key
      end
    end
    if wants.control and not is_sealed then return nil, 'nodes', '', '' end
    if wants['end'] then
      id = id or end_of(place, topics, closing)
    elseif not id and not wants.control then
      local topic = ARGV[place + 6]
      for t = place + 6, place + 5 + 4 * topics, 4 do
        if ended_at(ARGV[t]) or closing[ARGV[t]] then return nil, 'ended', ARGV[t], '' end
      end
      if wants.expect then
        local before = newest[topic]
        if before and before ~= wants.expect or not before and not is_as_expected(topic, wants) then
          return nil, 'expect', topic, before or last_of(topic) or ''
        end
      end
      for t = place + 6, place + 5 + 4 * topics, 4 do newest[ARGV[t]] = ARGV[place + 3] end
    end
    if not id and (has_streams or wants.stream) then
      local why, where, instead = stream_objection(get, wants, place)
      if why then return nil, why, where, instead or '' end
      change_streams(get, set, wants, place, 'new')
    end
    known[i] = id
    place = place + 6 + 4 * topics
  end
  if bytes > 0 and not has_room(bytes + key_bytes, window_ms, limit) then return nil, 'keys', '', '' end
  if added > 0 and not has_room_for_producers(added) then return nil, 'producers', '', '' end
  if more > 0 then
    local taken = tonumber(redis.call('GET', streams_size_key) or '0') + streams_more + more
    if taken > streams_limit then return nil, 'streams_full', ARGV[from + 6], '' end
  end
  rows_bytes = rows_bytes + added
  key_bytes = key_bytes + bytes
  return known, nil, nil, nil, repeater
end

-- The identity with the number of new events that follow.
local function renumbered(identity, left)
  return string.match(identity, '^(.* )%d+$') .. string.format('%.0f', left)
end

local repeated, refused, keys, at = {}, {}, {}, 10
for b = 1, batches do
  local key, count, asked = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local window_ms, limit, current = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), nil
  local before = key ~= '' and redis.call('GET', prefix .. 'batch:' .. key)
  local ids, known, why, topic, left, repeater = {}, nil, nil, nil, count, nil
  at = at + 5
  asked = asked ~= '' and cjson.decode(asked) or nil
  if not before and (asked or some_ended or has_streams) then
    known, why, topic, current, repeater = judge(at, count, asked, window_ms, limit)
    for i = 1, asked and count or 0 do has_producers = has_producers or asked[i].producer ~= nil end
    if why then
      refused[#refused + 1] = {b, why, topic, current or ''}
    else
      left = 0
      for i = 1, count do if not known[i] then left = left + 1 end end
    end
  end
  local is_whole = left == count
  for i = 1, count do
    if known and known[i] then
      -- A number is another event of this batch, with the same key.
      ids[i] = type(known[i]) == 'number' and ids[known[i]] or known[i]
    elseif not before and not why then
      left = left - 1
      local id, sealed = add(is_whole and ARGV[at] or renumbered(ARGV[at], left), ARGV[at + 1], ARGV[at + 2])
      if type(id) == 'table' then return id end
      stored[#stored + 1] = {id, at, sealed, asked and asked[i] or nil}
      ids[i] = id
      local wants = asked and asked[i] or {}
      if wants.take then redis.call('HDEL', prefix .. 'delayed', wants.take) end
      if wants.key then
        used['e' .. wants.key] = id
        keys[#keys + 1] = {prefix .. 'key:e' .. wants.key, id, window_ms}
      end
      if has_streams or wants.stream then
        change_streams(stream_at, set_stream, wants, at, id)
        if wants.stream and wants.stream.op == 'drop' then ended[ARGV[at + 6]] = false end
      end
      if wants.producer then
        local row = {epoch = wants.epoch, sequence = wants.sequence, id = id, is_new = true}
        rows[wants.producer] = row
      end
      for t = at + 6, at + 5 + 4 * tonumber(ARGV[at + 5]), 4 do
        if last[ARGV[t]] ~= nil and not wants.control then last[ARGV[t]] = id end
      end
      if asked and asked[i]['end'] then
        for t = at + 6, at + 5 + 4 * tonumber(ARGV[at + 5]), 4 do ended[ARGV[t]] = id end
        some_ended = true
      end
    end
    at = at + 6 + 4 * tonumber(ARGV[at + 5])
  end
  local request = not why and not before and asked and asked[1].request
  if request and not used['r' .. request] and not redis.call('GET', prefix .. 'key:r' .. request) then
    local value = asked[1].digest .. ' ' .. table.concat(ids, ' ')
    used['r' .. request] = value
    keys[#keys + 1] = {prefix .. 'key:r' .. request, value, window_ms}
  end
  if before then
    repeated[#repeated + 1] = {b, before, 0, -1}
  elseif not why and not is_whole then
    local duplicates = 0
    for i = 1, count do
      local is_repeat = known[i] and asked and (asked[i].key or asked[i].producer)
      if is_repeat then duplicates = duplicates + 1 end
    end
    repeated[#repeated + 1] = {b, table.concat(ids, ' '), duplicates, repeater and rows[repeater].sequence or -1}
  elseif not why and key ~= '' then
    keys[#keys + 1] = {prefix .. 'batch:' .. key, table.concat(ids, ' ')}
  end
end
redis.call('SET', counter_key, group, 'PX', ARGV[3])
if has_producers then forget_old_producers() end
if #stored == 0 then
  return {'stored', 0, repeated, refused}
end
redis.call('SET', newest_key, string.format('%.0f %.0f-%.0f', sequence, ms, n))
for i = 1, #keys do
  redis.call('SET', keys[i][1], keys[i][2], 'PX', keys[i][3] or ARGV[3])
end
if has_producers then
  local used_ms = string.format('%.0f', now_ms)
  for key, row in pairs(rows) do
    if row and row.is_new then
      local value = string.format('%.0f %.0f %s %s', row.epoch, row.sequence, row.id, used_ms)
      if redis.call('HSET', producers_key, key, value) == 1 then
        redis.call('INCRBY', size_key, 280 + #key)
      end
      redis.call('ZADD', used_key, used_ms, key)
    end
  end
end
for topic in pairs(changed_streams) do
  if stream_rows[topic] then
    redis.call('HSET', streams_key, topic, cjson.encode(stream_rows[topic]))
  else
    redis.call('HDEL', streams_key, topic)
  end
end
if streams_more ~= 0 then redis.call('INCRBY', streams_size_key, streams_more) end
if key_bytes > 0 then
  local minute_key = bytes_key(math.floor(now_ms / 60000))
  redis.call('INCRBY', minute_key, key_bytes)
  redis.call('PEXPIRE', minute_key, 26 * 60 * 60 * 1000)
end

local failures = 0
local function index_many(count, ...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    failures = failures + count
    return false
  end
  return answer
end
local function index(...) return index_many(1, ...) end

-- Up to where a topic may have had events, whose last position is not known.
local function before_unknown(topic, topic_key, mark_ms)
  local newest_stored = redis.call('LINDEX', topic_key, -1)
  if newest_stored then return string.match(newest_stored, '^%d+%-%d+') end
  local lost = lost_after(prefix, topic, '0-0', newest_before, mark_ms)
  return lost ~= '' and lost or '0-0'
end

-- Notes that a topic has an event now. Says what comes before, and whether that could be done.
local function note_seen(topic, topic_key, id, before, mark_ms)
  local length_ms = slice_ms(mark_ms)
  local slice = slice_of(id, length_ms)
  if before and slice_of(before, length_ms) >= slice then return before end
  before = before or before_unknown(topic, topic_key, mark_ms)
  add_seen(open_filter(prefix, slice, newest_before, mark_ms), topic)
  return before
end

local function blank_in(topic, id)
  local parts = parts_of(prefix, topic)
  local key = list_key(prefix, topic, list_after(prefix, topic, id, parts), parts)
  local at = first_after(key, id, redis.call('LLEN', key)) - 1
  local found = at >= 0 and redis.call('LINDEX', key, at)
  if found and string.match(found, '^%d+%-%d+') == id then
    local head, record = string.match(found, '^(%d+%-%d+ %d+%-%d+ )(.*)$')
    if not is_control(record) then redis.call('LSET', key, at, head .. BLANK) end
  end
end

-- Entries of the stream can't be changed: what is deleted of them is noted, for as long as
-- they are there.
local function note_erased(field, value)
  local erased, dates = prefix .. 'erased', prefix .. 'erased:dates'
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
  if oldest[1] then
    local before = '(' .. string.match(oldest[1][1], '^%d+')
    local old = redis.call('ZRANGEBYSCORE', dates, '-inf', before, 'LIMIT', 0, 1000)
    for i = 1, #old do redis.call('HDEL', erased, old[i]) end
    if #old > 0 then redis.call('ZREM', dates, unpack(old)) end
  end
  redis.call('HSET', erased, field, value)
  redis.call('ZADD', dates, string.match(value, '^%d+'), field)
end

-- Empties all events of a topic before the control entry with an id, in its list and in those of
-- their other topics. O(events).
local function purge(topic, through)
  local key = prefix .. 'topic:' .. topic
  local left_ms, at, entries = redis.call('PTTL', key), 0, {}
  local found = redis.call('LRANGE', key, 0, 63)
  while #found > 0 do
    for i = 1, #found do
      local head, id, record = string.match(found[i], '^((%d+%-%d+) %d+%-%d+ )(.*)$')
      if record ~= BLANK and not is_control(record) and is_above(through, id) then
        for _, other in ipairs(shared_topics(record)) do
          if other ~= topic then
            blank_in(other, id)
            note_erased('i' .. id, id)
          end
        end
        found[i] = head .. BLANK
      end
      entries[#entries + 1] = found[i]
    end
    at = at + #found
    found = redis.call('LRANGE', key, at, at + 63)
  end
  redis.call('DEL', key)
  for i = 1, #entries, 1000 do
    redis.call('RPUSH', key, unpack(entries, i, math.min(i + 999, #entries)))
  end
  if left_ms > 0 then redis.call('PEXPIRE', key, left_ms) end
  note_erased('t' .. topic, through)
end

-- Makes a full list of a stream its newest part. Nothing of a stream is evicted.
local function cut_list(topic, topic_key)
  local length = redis.pcall('LLEN', topic_key)
  if type(length) ~= 'number' or length < PART_ENTRIES then return end
  redis.call('PERSIST', topic_key)
  local first = string.match(redis.call('LINDEX', topic_key, 0), '^%d+%-%d+')
  local parts = index('RPUSH', prefix .. 'parts:' .. topic, first)
  if parts then redis.call('RENAME', topic_key, list_key(prefix, topic, parts - 1, parts)) end
end

local function drop_lists(topic, topic_key)
  local parts = parts_of(prefix, topic)
  for number = 0, parts - 1 do index('UNLINK', list_key(prefix, topic, number, parts)) end
  index('UNLINK', prefix .. 'parts:' .. topic, topic_key, prefix .. 'ended:' .. topic)
end

-- Entries for the lists of topics, which are written together: one call for what a group has of a
-- topic, and not three for each event. A list takes 0.3 KiB where a stream takes 4.5, and most topics
-- have few events.
local LISTED_MAX = 500
local waiting = {}

-- Writes what waits of a topic.
local function write_list(topic)
  local one = waiting[topic]
  waiting[topic] = nil
  if not one then return end
  if one.count > 1 then index('SET', prefix .. 'last:' .. topic, one.last, 'PX', ARGV[one.t + 3]) end
  if #one.entries == 0 then return end
  index_many(#one.entries, 'RPUSH', prefix .. 'topic:' .. topic, unpack(one.entries))
  index('LTRIM', prefix .. 'topic:' .. topic, -tonumber(ARGV[one.t + 1]), -1)
  index('PEXPIRE', prefix .. 'topic:' .. topic, ARGV[one.t + 2])
end

-- Has an event of a topic wait. `t` is the place of the topic's arguments.
local function list(t, id, record)
  local topic = ARGV[t]
  local one, before = waiting[topic], nil
  if one then
    before = one.last
  else
    before = index('SET', prefix .. 'last:' .. topic, id, 'PX', ARGV[t + 3], 'GET')
    one = {t = t, entries = {}, count = 0}
    waiting[topic] = one
  end
  one.last, one.count = id, one.count + 1
  local is_noted, noted = pcall(note_seen, topic, prefix .. 'topic:' .. topic, id, before, tonumber(ARGV[t + 3]))
  if is_noted then before = noted else failures = failures + 1 end
  if ARGV[t + 1] == '0' then return end
  one.entries[#one.entries + 1] = id .. ' ' .. (before or '0-0') .. ' ' .. record
  if #one.entries == LISTED_MAX then write_list(topic) end
end

-- The same at once, for what changes more than the list of a topic, and for streams.
local function list_alone(t, id, record, wants, is_stream)
  local topic, topic_key = ARGV[t], prefix .. 'topic:' .. ARGV[t]
  write_list(topic)
  if wants.purge then
    -- Before its own entry has the list evict what is to be deleted.
    for other in pairs(waiting) do write_list(other) end
    purge(topic, id)
  end
  local before = index('SET', prefix .. 'last:' .. topic, id, 'PX', ARGV[t + 3], 'GET')
  local is_noted, noted = pcall(note_seen, topic, topic_key, id, before, tonumber(ARGV[t + 3]))
  if is_noted then before = noted else failures = failures + 1 end
  if wants.stream and wants.stream.op == 'drop' then
    drop_lists(topic, topic_key)
  elseif is_stream then
    cut_list(topic, topic_key)
    index('RPUSH', topic_key, id .. ' ' .. (before or '0-0') .. ' ' .. record)
    index('PERSIST', topic_key)
    if wants['end'] then
      index('SET', prefix .. 'ended:' .. topic, id)
      index('SET', prefix .. 'ends', '1')
    end
  elseif ARGV[t + 1] ~= '0' then
    index('RPUSH', topic_key, id .. ' ' .. (before or '0-0') .. ' ' .. record)
    index('LTRIM', topic_key, -tonumber(ARGV[t + 1]), -1)
    index('PEXPIRE', topic_key, ARGV[t + 2])
    if wants['end'] then
      index('SET', prefix .. 'ended:' .. topic, id, 'PX', ARGV[t + 2])
      if has_streams then index('SET', prefix .. 'ends', '1')
      else index('SET', prefix .. 'ends', '1', 'PX', ARGV[5]) end
    end
  end
end

for i = 1, #stored do
  local id, record, wants = stored[i][1], stored[i][3], stored[i][4]
  at = stored[i][2]
  local own_id = ARGV[at + 3]
  if own_id ~= '' then
    index('SET', prefix .. 'id:' .. own_id, id, 'PX', ARGV[at + 4], 'NX')
  end
  for t = at + 6, at + 5 + 4 * tonumber(ARGV[at + 5]), 4 do
    local is_stream = has_streams and stream_at(ARGV[t])
    if wants or is_stream then
      list_alone(t, id, record, wants or {}, is_stream)
    else
      list(t, id, record)
    end
  end
end
for topic in pairs(waiting) do write_list(topic) end

-- Last, because what is deleted may be of this group.
for i = 1, #stored do
  local wants = stored[i][4] or {}
  if wants.erase then
    at = stored[i][2]
    for t = at + 6, at + 5 + 4 * tonumber(ARGV[at + 5]), 4 do blank_in(ARGV[t], wants.erase) end
    note_erased('i' .. wants.erase, wants.erase)
  end
end

local keep_ms, times_key = tonumber(ARGV[5]), prefix .. 'times'
if now_ms < ms then
  -- Ids are ahead of the clock: which time belongs to which id, every 100 ms. The last one is needed
  -- until its events are too old, or the clock has passed its id.
  index('ZREMRANGEBYSCORE', times_key, string.format('%.0f', now_ms - now_ms % 100), '+inf')
  index('ZADD', times_key, now, string.format('%.0f-%.0f', ms, n))
  index('ZREMRANGEBYRANK', times_key, 0, -4097)
  index('PEXPIRE', times_key, string.format('%.0f', keep_ms + ms - now_ms))
end

-- The age of an event counts from the time when it was stored, not from its id.
local old_ms = math.max(0, now_ms - keep_ms)
local oldest = string.format('%.0f-0', old_ms)
local mark = index('ZREVRANGEBYSCORE', times_key, '(' .. string.format('%.0f', old_ms), '-inf', 'LIMIT', 0, 1)
if mark and mark[1] and is_above(mark[1], oldest) then oldest = mark[1] end
index('XTRIM', stream, 'MINID', '~', oldest)
return {'stored', failures, repeated, refused}
