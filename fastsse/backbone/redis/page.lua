-- Reads topics: their stored events between two places, oldest first, up to a number of bytes each.
--
-- KEYS: floor, newest, lost. ARGV: key prefix, the id after which, the id up to which, bytes for each
--       topic, ms for which a topic's last position is known, topics.
-- Answers: the time in ms, the floor, then for each topic: what is known of events it had and has no
-- more (the id before the oldest stored, or of the last one when none is stored; '' when nothing
-- is known), whether all up to the end were read, and the entries as id, record, id, record, ….
--
-- Entries of a topic that Redis has lost are noticed by `seen.lua`, and then recorded.
--
-- Where to begin is found by bisection.
local prefix, after, through, budget = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local mark_ms = tonumber(ARGV[5])
local newest = string.match(redis.call('GET', KEYS[2]) or '', '%d+%-%d+$') or '0-0'
if is_above(newest, through) then newest = through end
local floor = redis.call('GET', KEYS[1]) or newest
local lost = redis.call('GET', KEYS[3]) or '0-0'
if is_above(lost, through) then lost = through end

-- Adds the entries of a list from a place on to those of a page. Returns how large it is now, and
-- whether all up to the end was read if it ends in this list.
local function read_list(key, at, length, entries, bytes)
  local count = 1
  while at < length do
    local found = redis.call('LRANGE', key, at, at + count - 1)
    for i = 1, #found do
      local id, record = string.match(found[i], '^(%d+%-%d+) %d+%-%d+ (.*)$')
      if is_above(id, through) then return bytes, 1 end
      -- At least one, whatever its size.
      if bytes >= budget then return bytes, 0 end
      entries[#entries + 1], entries[#entries + 2] = id, record
      bytes = bytes + #record
    end
    at = at + #found
    count = math.min(count * 2, 64)
  end
  return bytes, nil
end

-- The oldest entry, whether all up to the end was read, and the entries. A list that Redis has lost
-- ends the page. At the beginning of a page it is passed over: then the oldest entry is the first
-- one behind it, or unknown.
local function read(topic)
  local parts = parts_of(prefix, topic)
  local start, entries, bytes = list_after(prefix, topic, after, parts), {}, 0
  local oldest = redis.call('LINDEX', list_key(prefix, topic, 0, parts), 0)
  for number = start, parts do
    local key, at, is_whole = list_key(prefix, topic, number, parts), 0, nil
    local length = redis.call('LLEN', key)
    if length == 0 and #entries > 0 then return oldest, 0, entries end
    if length == 0 then
      oldest = nil
    else
      oldest = oldest or redis.call('LINDEX', key, 0)
      if number == start and (number > 0 or not is_above(oldest, after)) then
        at = first_after(key, after, length)
      end
      bytes, is_whole = read_list(key, at, length, entries, bytes)
    end
    if is_whole then return oldest, is_whole, entries end
  end
  return oldest, 1, entries
end

-- Up to where events of a topic were lost that has no list and no last position; '' for none. It is
-- known from now on, so that a reader gets one gap event for it.
local function noticed(topic)
  local place, is_in_filter = lost_after(prefix, topic, after, newest, mark_ms)
  if place == '' or not is_above(place, floor) then return '' end
  if is_in_filter then redis.pcall('SET', prefix .. 'last:' .. topic, place, 'PX', mark_ms) end
  return place
end

local time = redis.call('TIME')
local answer = {
  string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)),
  floor,
}
for t = 6, #ARGV do
  local oldest, is_whole, entries = read(ARGV[t])
  local gone = oldest and string.match(oldest, '^%d+%-%d+ (%d+%-%d+) ')
    or redis.call('GET', prefix .. 'last:' .. ARGV[t]) or noticed(ARGV[t])
  if lost ~= '0-0' and (gone == '' or is_above(lost, gone)) then gone = lost end
  answer[#answer + 1] = {gone, is_whole, entries}
end
return answer
