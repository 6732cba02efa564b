-- Appends records to a stream. It ends at the first that is refused, so that none behind it is
-- written before it. KEYS: the stream. ARGV: the mirror, about how many entries are kept, and for
-- each record its position, topic and value.
for at = 3, #ARGV, 3 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[at],
    'mirror', ARGV[1], 'topic', ARGV[at + 1], 'data', ARGV[at + 2])
end
return 1
