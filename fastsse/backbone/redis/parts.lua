-- The entries of a topic, oldest first, each `id before record`. A list finds an entry by walking
-- through it, so the list of a durable stream is cut: its full parts have keys of their own, which
-- never change, and `parts:` names the first id of each. The newest entries are always in the list
-- of the topic. Other topics are one list, whose length their rule bounds.
local PART_ENTRIES = 1024

-- The list with a number of a topic with so many full parts.
local function list_key(prefix, topic, number, parts)
  if number >= parts then return prefix .. 'topic:' .. topic end
  return prefix .. 'part:' .. string.format('%d', number) .. ':' .. topic
end

local function parts_of(prefix, topic) return redis.call('LLEN', prefix .. 'parts:' .. topic) end

-- Where the entries of a list after an id begin. O(log n) look-ups.
local function first_after(key, id, length)
  local low, high = 0, length
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_above(redis.call('LINDEX', key, middle), id) then high = middle else low = middle + 1 end
  end
  return low
end

-- The number of the list that has the first entry after an id, or ends before it.
local function list_after(prefix, topic, id, parts)
  if parts == 0 then return 0 end
  local begun = first_after(prefix .. 'parts:' .. topic, id, parts)
  if begun < parts then return math.max(0, begun - 1) end
  local first = redis.call('LINDEX', prefix .. 'topic:' .. topic, 0)
  if first and is_above(first, id) then return parts - 1 end
  return parts
end

-- A function that returns the next older entries of a topic with each call, at most so many, in
-- their order; none at the end.
local function older_entries(prefix, topic)
  local parts, at = parts_of(prefix, topic), -1
  local number = parts
  return function(count)
    while number >= 0 do
      local found = redis.call('LRANGE', list_key(prefix, topic, number, parts), at - count + 1, at)
      at = at - count
      if #found < count then number, at = number - 1, -1 end
      if #found > 0 then return found end
    end
    return {}
  end
end
