-- Records which subscribers opened and ended at a node.
--
-- KEYS: nodes, the node's `held`, counts. ARGV: key prefix, node, then for each change:
--   '+', name, record, payload, number of selectors, selectors: it opened; '-', name, record,
--   number of selectors, selectors: it ended, so it is no longer listed, but held until its end is
--   published; 'x', name, number of selectors: its end has been published.
-- Answers: nothing if the node is not alive (nothing was done then); else '1' for each opened one
--   that is new, '0' for one that the same node had under another name, which is already known.
--
-- A call may be repeated if its answer was lost.
local nodes, held, counts = KEYS[1], KEYS[2], KEYS[3]
local prefix, node = ARGV[1], ARGV[2]
if not redis.call('ZSCORE', nodes, node) then return false end

local function is_ours(value) return string.sub(value, 1, #node) == node end

local function come(name, kept, payload, first, last)
  local is_new = '1'
  for at = first, last do
    local key = prefix .. 'there:' .. ARGV[at]
    local before = redis.call('HGET', key, name)
    if before and not is_ours(before) then is_new = '0' end
    redis.call('HSET', key, name, node .. payload)
  end
  if redis.call('HSET', held, name, '+' .. kept) == 1 then
    redis.call('HINCRBY', counts, node, last - first + 1)
  end
  return is_new
end

local function go(name, kept, first, last)
  for at = first, last do
    local key = prefix .. 'there:' .. ARGV[at]
    local before = redis.call('HGET', key, name)
    if before and is_ours(before) then redis.call('HDEL', key, name) end
  end
  if redis.call('HEXISTS', held, name) == 1 then redis.call('HSET', held, name, '-' .. kept) end
end

local news, at = {}, 3
while ARGV[at] do
  local what, name = ARGV[at], ARGV[at + 1]
  if what == '+' then
    local last = at + 4 + tonumber(ARGV[at + 4])
    news[#news + 1] = come(name, ARGV[at + 2], ARGV[at + 3], at + 5, last)
    at = last + 1
  elseif what == '-' then
    local last = at + 3 + tonumber(ARGV[at + 3])
    go(name, ARGV[at + 2], at + 4, last)
    at = last + 1
  else
    if redis.call('HDEL', held, name) == 1 then
      redis.call('HINCRBY', counts, node, -tonumber(ARGV[at + 2]))
    end
    at = at + 3
  end
end
return table.concat(news)
