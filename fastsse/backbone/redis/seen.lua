-- Which topics had events, in filters of a fixed size. So a key that Redis evicted, or that was
-- deleted by hand, can be distinguished from a key that never was.
--
-- Time is cut into slices, a quarter of the time for which a topic's last position is known. Each
-- slice with an event has a Bloom filter of the topics that had one in it: 1 MiB, six functions, one
-- wrong yes in a hundred at a million topics. A topic is added with its first event in a slice. At
-- most six filters are kept.
--
-- A filter begins with 64 bytes of text: the slice of the earlier filter ('-' for none), and the id
-- up to which filters are unreliable, because one of them was missing.
local FILTER_HEAD, FILTER_BITS, FILTER_SLICES = 64, 8388608, 4

local function slice_ms(mark_ms) return math.max(1, math.floor(mark_ms / FILTER_SLICES)) end

local function slice_of(id, length_ms)
  return math.floor(tonumber(string.match(id, '^%d+')) / length_ms)
end

local function filter_key(prefix, slice) return prefix .. 'seen:' .. string.format('%.0f', slice) end

local function bits_of(topic)
  local digest, bits = redis.sha1hex(topic), {}
  for i = 0, 5 do
    bits[i + 1] = FILTER_HEAD * 8 + tonumber(string.sub(digest, i * 6 + 1, i * 6 + 6), 16) % FILTER_BITS
  end
  return bits
end

-- The earlier slice, or nil, and up to where filters are unreliable; nil if there is no filter.
local function filter_head(key)
  local before, unsure = string.match(redis.call('GETRANGE', key, 0, FILTER_HEAD - 1), '^(%S+) (%d+%-%d+) ')
  return unsure, tonumber(before)
end

-- Makes sure that a slice has a filter; `newest` is the id of the log's newest entry before this
-- one.
local function open_filter(prefix, slice, newest, mark_ms)
  local key = filter_key(prefix, slice)
  if filter_head(key) then return key end
  local length_ms = slice_ms(mark_ms)
  local before, unsure = slice_of(newest, length_ms), '0-0'
  if before >= slice or not filter_head(filter_key(prefix, before)) then
    before, unsure = '-', newest
  else
    before = string.format('%.0f', before)
  end
  redis.call('SETRANGE', key, FILTER_HEAD + FILTER_BITS / 8 - 1, '\0')
  redis.call('SETRANGE', key, 0, before .. ' ' .. unsure .. ' ')
  redis.call('PEXPIRE', key, mark_ms + 2 * length_ms)
  return key
end

local function add_seen(key, topic)
  for _, bit in ipairs(bits_of(topic)) do redis.call('SETBIT', key, bit, 1) end
end

-- Whether one filter knows the topic.
local function is_seen(key, bits)
  for _, bit in ipairs(bits) do
    if redis.call('GETBIT', key, bit) == 0 then return false end
  end
  return true
end

-- Up to where a topic without a list and a last position may have had events after a place, none of
-- which is stored; '' for none. `newest` is the id of the log's newest entry. The second value says
-- whether a filter has the topic, so that the answer must be recorded.
local function lost_after(prefix, topic, after, newest, mark_ms)
  local length_ms, slice = slice_ms(mark_ms), nil
  slice = slice_of(newest, length_ms)
  local bits, unsure = bits_of(topic), nil
  local last = math.max(slice_of(after, length_ms), slice - FILTER_SLICES - 1)
  local missing = newest
  while slice and slice >= last do
    local key = filter_key(prefix, slice)
    local before
    unsure, before = filter_head(key)
    if not unsure then return is_above(missing, after) and missing or '' end
    if is_seen(key, bits) then return newest, true end
    if is_above(unsure, after) then return unsure end
    missing = string.format('%.0f-0', slice * length_ms)
    slice = before
  end
  return ''
end
