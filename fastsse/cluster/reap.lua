-- Removes some subscribers of a dead node, after forgetting those whose end was published.
--
-- KEYS: dead, the node's `held`, counts. ARGV: key prefix, node, ms for which it is still our task,
--       cursor of the walk through `held`, how many selectors at once, about, then names to forget.
-- Answers: where the walk continues, '' when all is done; names and records of those whose end must
--       be published. A subscriber that the same node has under another name by now is only
--       forgotten.
local dead, held, counts = KEYS[1], KEYS[2], KEYS[3]
local prefix, node = ARGV[1], ARGV[2]
for at = 6, #ARGV do
  redis.call('HDEL', held, ARGV[at])
end
if redis.call('EXISTS', held) == 0 then
  redis.call('ZREM', dead, node)
  redis.call('HDEL', counts, node)
  return {'', {}}
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', dead, now_ms + tonumber(ARGV[3]), node)

local each = tonumber(redis.call('HGET', counts, node) or '1') / redis.call('HLEN', held)
local count = math.max(1, math.floor(tonumber(ARGV[5]) / math.max(1, each)))
-- A record that can't be read was not written by a node.
local function selectors_of(kept)
  local is_read, selectors = pcall(cjson.decode, string.match(kept, '^.([^\n]*)'))
  if not is_read or type(selectors) ~= 'table' then return nil end
  for _, selector in ipairs(selectors) do
    if type(selector) ~= 'string' then return nil end
  end
  return selectors
end

local walk = redis.call('HSCAN', held, ARGV[4], 'COUNT', count)
local ended = {}
for i = 1, #walk[2], 2 do
  local name, kept = walk[2][i], walk[2][i + 1]
  local selectors = selectors_of(kept)
  local is_elsewhere = not selectors
  for _, selector in ipairs(selectors or {}) do
    local key = prefix .. 'there:' .. selector
    local value = redis.call('HGET', key, name)
    if value and string.sub(value, 1, #node) == node then
      redis.call('HDEL', key, name)
    elseif value then
      is_elsewhere = true
    end
  end
  if is_elsewhere then
    redis.call('HDEL', held, name)
  else
    ended[#ended + 1] = name
    ended[#ended + 1] = kept
  end
end
return {walk[1], ended}
