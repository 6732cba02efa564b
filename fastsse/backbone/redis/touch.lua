-- Notes that a durable stream was read now, unless it was deleted meanwhile.
--
-- KEYS: streams. ARGV: topic, generation.
local found = redis.call('HGET', KEYS[1], ARGV[1])
local row = found and cjson.decode(found)
if not row or row.g ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
row.m = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(row))
return 1
