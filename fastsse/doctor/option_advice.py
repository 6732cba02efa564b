"""What a wrong value of each of our options looks like, and which metric shows it.

The options themselves are declared in `fastsse.config`; a test wants an entry here for each, and
nothing for an option that is gone. Over 400 lines: a table with a row for each option.
"""

from typing import NamedTuple


class Advice(NamedTuple):
    """`symptom` of a wrong value; `watch`: the metric, log line or command that shows it."""

    symptom: str
    watch: str


_START = "the log's first line"
_DISCONNECTS = "`fastsse_disconnects_total"
_AUTHORIZE = "`fastsse_authorize_total`"
_STATUS = "publishers' status"
_TOKEN = "the answer's detail, `fastsse token explain`"

ADVICE: dict[str, Advice] = {
    "host": Advice('"connection refused" from other machines: it listens on loopback only', _START),
    "port": Advice('"Port 8080 is in use" at start', _START),
    "uds": Advice(
        "502 from the proxy: it may not reach the socket's folder, or the path is another", _START
    ),
    "fd": Advice('"Descriptor 3 is not a socket" at start', _START),
    "admin_port": Advice(
        "unset: every client of the port can read `/metrics` and `/stats`",
        "`curl` to `/metrics` from outside",
    ),
    "tls_cert": Advice(
        "not renewed: clients refuse it", "`fastsse_tls_certificate_expiry_seconds`, the log"
    ),
    "tls_key": Advice("of another certificate: refused at start", "the start's error"),
    "tls_min": Advice(
        "1.3: old clients can't connect", '`fastsse_tls_handshakes_total{result="failed"}`'
    ),
    "tls_records": Advice(
        "native: experimental; clients of TLS 1.2 or ChaCha20 stay with OpenSSL",
        "`fastsse_tls_records_total`",
    ),
    "tls_handshakes": Advice(
        "too small: after a restart clients wait to connect; too large: a flood costs memory",
        "`fastsse_tls_handshakes_pending`",
    ),
    "tls_handshake_time": Advice(
        "too short: clients on slow lines can't connect; too long: idle ones hold places",
        '`fastsse_tls_handshakes_total{result="timed_out"}`',
    ),
    "hsts": Advice(
        "set before https works on every subdomain page: browsers refuse http for that long",
        "`curl -i` over https",
    ),
    "redirect_port": Advice("unset: http:// is refused by the kernel", "`curl -i` over http"),
    "max_connections": Advice(
        "too small: new subscribers are turned away; too large: refused at start",
        "`fastsse_connections` against `fastsse_max_connections`, `fastsse_turned_away_total`",
    ),
    "max_topics": Advice("too small: subscribers get 400 that names `topic`", "clients' status"),
    "max_feeds": Advice(
        "too small: `POST /feeds` gets 503", "`fastsse_requests_total` of `/feeds`"
    ),
    "feeds_total": Advice(
        "too small: `POST /feeds` gets 503; too large: memory of the hub process",
        "`fastsse_requests_total` of `/feeds`",
    ),
    "max_scheduled": Advice("too small: delayed publishes get 507", "`fastsse_schedule_events`"),
    "schedule_total": Advice(
        "too small: delayed publishes get 507; too large: memory of the hub process",
        "`fastsse_schedule_bytes`",
    ),
    "feed_lifetime": Advice(
        "too short: clients that return find their feed gone", "`fastsse_feeds_unknown_total`"
    ),
    "retry": Advice(
        "too short: storms of reconnects after a stop; too long: clients stay away for longer",
        "rate of `fastsse_connections_total` after a restart",
    ),
    "heartbeat": Advice(
        "too long: proxies cut silent streams, most at 60 s; too short: CPU for nothing",
        "`fastsse doctor --url`, `fastsse_heartbeats_total`",
    ),
    "min_heartbeat": Advice(
        "too small: subscribers ask for heartbeats that cost CPU; too large: clients with a short "
        "read timeout are cut before their heartbeat",
        "`fastsse_heartbeats_total`",
    ),
    "max_pad": Advice(
        "too small: a proxy that forwards whole blocks holds small events back; too large: "
        "subscribers ask for heartbeats that cost bandwidth",
        "`fastsse_bytes_sent_total`",
    ),
    "initial_id": Advice(
        "`true`: readers of token streams parse the opening block as JSON; `false`: a client that "
        "is cut before its first event does not know its place",
        "clients' errors when a stream opens",
    ),
    "max_filters": Advice(
        "too small: streams with a filter are refused; too large: memory for channels",
        "`fastsse_filters`, `fastsse_filters_refused_total`",
    ),
    "max_topic_filters": Advice(
        "too small: streams with a filter are refused; too large: CPU for each event of a topic",
        "`fastsse_filters_refused_total`, CPU of the sender thread",
    ),
    "envelope": Advice(
        "`json` for clients that expect the data as it was published: they parse another object",
        "clients' errors when an event arrives",
    ),
    "max_event": Advice(
        "0B or too large: clients with a limit for a line (Go: 64 KiB) fail at one event again and "
        "again; too small: 413",
        "`fastsse_repeated_resumes_total`, `fastsse_requests_total`",
    ),
    "max_lag": Advice(
        "too small: clients on bad lines are cut in bursts; too large: memory for slow clients",
        f'{_DISCONNECTS}{{reason="lagged"}}`, `fastsse_lag_bytes`',
    ),
    "max_lag_time": Advice(
        "too small: clients are cut by a tunnel or a lift; too large: they get old events",
        f'{_DISCONNECTS}{{reason="lagged"}}`, `fastsse_blocked_connections`',
    ),
    "lag_policy": Advice(
        "`disconnect` for values that only matter while new: clients reconnect and read the past; "
        "`latest` or `skip` for events that all matter: some never arrive",
        '`fastsse_gaps_total{reason="lagged"}`, `fastsse_gaps_total{reason="evicted"}`',
    ),
    "clean_end": Advice(
        "`over` behind a proxy that counts cut responses: it takes the server for broken; "
        "`always`: clients take half an answer for the whole",
        "the proxy's error log after a drain",
    ),
    "user_timeout": Advice(
        "too long: clients that vanished hold memory; too short: phones are cut between two cells",
        f'{_DISCONNECTS}{{reason="timeout"}}`',
    ),
    "notsent_lowat": Advice(
        "too large: slow clients are judged late and get old events; too small: more system calls "
        "for a client that reads slowly",
        "`fastsse_blocked_connections`, Send-Q of `ss -t`",
    ),
    "memory_limit": Advice(
        "too small: publishers get 503; too large: the OOM killer comes first",
        '`fastsse_memory_bytes`, `fastsse_publish_refused_total{reason="memory"}`',
    ),
    "drain": Advice(
        "too short: all clients reconnect at once; longer than the supervisor's patience "
        "(TimeoutStopSec, terminationGracePeriodSeconds): killed in the middle",
        f'{_DISCONNECTS}{{reason="drained"}}`',
    ),
    "store": Advice(
        "`memory`: history is gone after a restart; a file on a slow or full disk: publishers get "
        "503",
        "`fastsse_history_events`, `/readyz`, `fastsse history check PATH`",
    ),
    "ack": Advice(
        "`received`: events that got a 200 are gone after a crash; `synced` on a slow disk: "
        "publishers wait",
        "publishers' latency",
    ),
    "store_total": Advice(
        "too small: clients that reconnect get a gap; too large, or 0: the disk fills up",
        '`fastsse_gaps_total{reason="evicted"}`, `df`',
    ),
    "max_replays": Advice(
        "too small: clients that reconnect wait long; too large: replays fill memory",
        "`fastsse_replays`",
    ),
    "history_events": Advice(
        "too small: clients that reconnect get a gap; too large: memory",
        '`fastsse_gaps_total{reason="evicted"}`, `fastsse_history_events`',
    ),
    "history_age": Advice(
        "shorter than clients are away: gaps",
        '`fastsse_gaps_total{reason="evicted"}`',
    ),
    "history_bytes": Advice(
        "too small for large events: gaps though few events are kept",
        '`fastsse_gaps_total{reason="evicted"}`, `fastsse_history_bytes`',
    ),
    "history_total": Advice(
        "too small for all topics together: one busy topic pushes out the others' history",
        '`fastsse_history_bytes`, `fastsse_gaps_total{reason="evicted"}`',
    ),
    "key_window": Advice(
        "shorter than publishers repeat for: a late repeat is stored again",
        "`duplicates` in the publishers' answers",
    ),
    "keys_total": Advice(
        "too small for the rate of keyed publishes times `key_window`: 503 with reason `keys`",
        '`fastsse_publish_refused_total{reason="keys"}`',
    ),
    "producer_window": Advice(
        "shorter than a producer rests: its next repeat is stored again",
        "`duplicates` in the producers' answers",
    ),
    "producers_total": Advice(
        "too small for the producers within `producer_window`: 503 with reason `producers`",
        '`fastsse_publish_refused_total{reason="producers"}`',
    ),
    "streams_total": Advice(
        "too small for the durable streams: appends get 507 until streams are deleted",
        "`fastsse_durable_streams_bytes`",
    ),
    "streams_path": Advice(
        "a path that a proxy does not pass on", "404 for every durable stream at the proxy"
    ),
    "streams_plain": Advice(
        "off, and a reader of a plain topic waits for content", "404 below `streams_path`"
    ),
    "streams_poll": Advice(
        "longer than the time-out of a proxy: long-polls end with 504", "504 at the proxy"
    ),
    "interceptors": Advice(
        "every publish passes them, so a slow one slows all publishers",
        "`fastsse_intercepted_events_total`",
    ),
    "interceptor_time": Advice(
        "too short: publishes get 500 on a busy machine; too long: a faulty interceptor stops the "
        "worker for so long",
        "the log event of a refused publish",
    ),
    "topics": Advice("a rule that never holds: one before it matches too", "`fastsse config show`"),
    "redis_stream": Advice(
        "two services with the same name in one database: each gets the other's events",
        "`redis-cli XINFO STREAM fastsse`",
    ),
    "redis_events": Advice(
        "too small: nodes that were away, and templates and `*` that resume, receive gaps; too "
        "large: Redis's memory",
        '`fastsse_redis_total{what="gaps_trimmed"}`, `redis-cli MEMORY USAGE fastsse`',
    ),
    "redis_wait": Advice(
        "0: a failover may lose events that were acknowledged (a gap event announces it); more "
        "than there are replicas: every publish is refused",
        "`/readyz`, `redis-cli INFO replication`",
    ),
    "redis_timeout": Advice(
        "too short: publishes refused while Redis forks or fails over; too long: publishers wait",
        f'{_STATUS}, `fastsse_redis_total{{what="reconnects"}}`',
    ),
    "redis_node_timeout": Advice(
        "too short: nodes that only pause for a moment are announced as ended and come again; too "
        "long: a killed node's subscribers stay in the lists",
        "the log: This node registers again under another name; A dead node was removed",
    ),
    "redis_may_evict": Advice(
        "on: gap events when Redis is full; off with such a Redis: it does not start",
        "`fastsse_gaps_total`, the log",
    ),
    "redis_start": Advice(
        "too short: a node that starts with its Redis gives up before that is ready", _START
    ),
    "sources": Advice(
        "a pattern without publishers; a field or template without a match in messages: they are "
        "set aside (`fastsse source test` shows it)",
        "`fastsse_sources_total`, `fastsse_source_up`, `fastsse_source_lag_seconds`, the log",
    ),
    "webhooks": Advice(
        "a receiver that is away: its events wait until give_up", "`fastsse_webhook_total`, the log"
    ),
    "mirrors": Advice(
        "a system that is away for longer than history is kept: its copy has a gap",
        "`fastsse_mirror_total`, `fastsse_mirror_up`, `fastsse_mirror_lag_seconds`, the log",
    ),
    "hooks": Advice(
        "a receiver that is away: notices of connect and disconnect wait until give_up",
        "`fastsse_hook_total`, the log",
    ),
    "authorize_url": Advice(
        "an address that does not answer: no client may subscribe or publish",
        "`fastsse_authorize_total`, the log",
    ),
    "authorize_secrets": Advice("another one than the receiver's: it refuses all", _AUTHORIZE),
    "authorize_operations": Advice("one too few: that is decided by tokens alone", _AUTHORIZE),
    "authorize_headers": Advice(
        "one that differs with each request: no answer is used again", _AUTHORIZE
    ),
    "authorize_timeout": Advice("too short: refusals while the receiver is busy", _AUTHORIZE),
    "authorize_cache": Advice(
        "too long: a right that was withdrawn still holds; too short: a question for each request",
        _AUTHORIZE,
    ),
    "rules": Advice(
        "an expression that matches more than was meant: events are missing (try it with dry_run); "
        "a count that is reached all the time",
        "`fastsse_rule_matches_total`, `fastsse_rule_failures_total`, the log",
    ),
    "outbound_networks": Advice(
        "too wide: who may choose addresses reaches machines inside; too narrow: webhooks to these "
        "are refused",
        "the log",
    ),
    "publish_token": Advice("401 for publishers: none sent, or another one", _STATUS),
    "allow_anonymous_publish": Advice(
        "on, where others reach the port: anybody's events in your streams",
        "`fastsse_events_published_total`",
    ),
    "allowed_hosts": Advice(
        "missing: 421 through a proxy on the same machine that passes its public Host on",
        "clients' status",
    ),
    "cors_origins": Advice(
        'missing: "blocked by CORS policy" in the browser\'s console, streams that never open',
        "the browser's console",
    ),
    "jwt_key": Advice("401 for everybody: another key than the one that signs", _TOKEN),
    "jwt_algorithms": Advice("401 that names alg: the tokens' is not listed", _TOKEN),
    "publisher_jwt_key": Advice("401 for publishers only: another key than theirs", _TOKEN),
    "publisher_jwt_algorithms": Advice("401 for publishers that names alg", _TOKEN),
    "subscriber_jwt_key": Advice("401 for subscribers only: another key than theirs", _TOKEN),
    "subscriber_jwt_algorithms": Advice("401 for subscribers that names alg", _TOKEN),
    "jwt_previous_key": Advice(
        "missing after a rotation: 401 for tokens that were signed before it", _TOKEN
    ),
    "publisher_jwt_previous_key": Advice("as jwt_previous_key, for publishers only", _TOKEN),
    "subscriber_jwt_previous_key": Advice("as jwt_previous_key, for subscribers only", _TOKEN),
    "jwt_previous_until": Advice(
        "too early: 401 for tokens that live longer than the rotation took", _TOKEN
    ),
    "jwks_url": Advice(
        "not to be reached: 503 for publishers, and subscribers are turned away",
        '"The key set can\'t be fetched" in the log; it is read every 5 minutes, and again 30 s '
        "after a failure",
    ),
    "jwt_audience": Advice("401 that names aud: tokens are made for another address", _TOKEN),
    "jwt_issuer": Advice("401 that names iss", _TOKEN),
    "jwt_leeway": Advice(
        "too small: 401 that names nbf, where clocks differ; too large: streams outlive their "
        "tokens",
        _TOKEN,
    ),
    "jwt_cookie": Advice("401 though the browser sends a cookie: it has another name", _TOKEN),
    "anonymous": Advice(
        "off where readers have no tokens: 401; on: everybody reads what is not private",
        "clients' status",
    ),
    "expiry_notice": Advice(
        "too short for a page to get a fresh token: it reconnects instead",
        "the browser's network log",
    ),
    "ticket_lifetime": Advice(
        "too short: 401 for pages on slow lines; too long: tickets in logs are still good",
        "clients' status",
    ),
    "cors_headers": Advice(
        "missing: the preflight of a library that adds a header fails: the console names it",
        "the browser's console",
    ),
    "publish_origins": Advice(
        "missing: 401 for pages that publish with the token cookie", "the browser's console"
    ),
    "trusted_proxies": Advice(
        "missing: all clients of a proxy share one limit; a network of strangers: they choose "
        "whose limit they use up",
        "`client` in the access lines",
    ),
    "proxy_protocol": Advice(
        "on for a proxy that sends none, or off for one that does: 400 for every request",
        "the proxy's log",
    ),
    "address_streams": Advice(
        "too small: an office behind one address is turned away", "`fastsse_limited_total`"
    ),
    "address_opens": Advice(
        "too small: offices are turned away when all their pages reconnect",
        "`fastsse_limited_total`",
    ),
    "address_publishes": Advice("too small: 429 for publishers", "`fastsse_limited_total`"),
    "address_requests": Advice(
        "too small: 429 for pongs and tickets, and streams end for want of them",
        "`fastsse_limited_total`",
    ),
    "address_replay": Advice(
        "too small: clients that resume are turned away", "`fastsse_limited_total`"
    ),
    "subject_streams": Advice(
        "too small: a user's further tabs are turned away", "`fastsse_limited_total`"
    ),
    "subject_opens": Advice(
        "too small: a user with many tabs is turned away after a restart",
        "`fastsse_limited_total`",
    ),
    "subject_publishes": Advice("too small: 429 for publishers", "`fastsse_limited_total`"),
    "subject_requests": Advice(
        "too small: 429 for tickets and renewals of a user with many tabs",
        "`fastsse_limited_total`",
    ),
    "over_limit": Advice(
        "newest: a phone that vanished keeps its user out until its stream ends; oldest: further "
        "tabs end each other",
        '`fastsse_limited_total{limit="evicted"}`',
    ),
    "subject_replay": Advice(
        "too small: users that resume are turned away", "`fastsse_limited_total`"
    ),
    "subscriptions": Advice(
        "on without use: two events for each stream that comes and goes",
        "`fastsse_events_published_total`",
    ),
    "ping": Advice(
        "too short: a wake-up of every phone for nothing", "rate of `fastsse_sends_total`"
    ),
    "pong_timeout": Advice(
        "too short: pages in the background are cut, whose timers browsers slow down to a minute",
        f'{_DISCONNECTS}{{reason="no_pong"}}`',
    ),
    "stream_lifetime": Advice(
        "too short: the server is busy with clients that reconnect",
        f'{_DISCONNECTS}{{reason="lifetime"}}`',
    ),
    "page": Advice("`on` in public: a page on which everyone may try to publish", "`curl` to `/`"),
    "max_body": Advice(
        "too small: 413; above max_lag: one event cuts every client that is not quick", _STATUS
    ),
    "max_head": Advice("too small: 431 where cookies are large", "clients' status"),
    "max_headers": Advice("too small: 431 behind many proxies", "clients' status"),
    "head_timeout": Advice(
        "too long: idle connections hold descriptors; too short: 408 on bad lines",
        "clients' status, `ss -s`",
    ),
    "body_timeout": Advice("too short: 408 for large bodies on slow lines", _STATUS),
    "idle_timeout": Advice(
        "shorter than the publishers' own: a reset now and then when they reuse a connection",
        "publishers' errors",
    ),
    "console_password": Advice(
        "unset with a public address and no keys: no way to see who is connected",
        "`fastsse connections`",
    ),
    "console_minting": Advice(
        "set: an operator with the role act may make tokens with any grant, but for the console",
        "lines of the logger `fastsse.audit`",
    ),
    "metrics_topics": Advice(
        "a series a topic in Prometheus; each scrape looks at all topics",
        "`fastsse_topic_events_per_second`, time of a scrape",
    ),
    "connection_details": Advice(
        "on: 64 bytes a stream; off: no list of connections", "`fastsse connections`"
    ),
    "workers": Advice(
        "too few: one core is full and others idle; more than cores: memory, and nothing gained "
        "but descriptors",
        "`top` by process, `processes` of `/stats`",
    ),
    "pidfile": Advice("unset: `fastsse reload` finds no server", "`fastsse reload`"),
    "log_level": Advice("`debug`: a line for each publish, and CPU for it", "the log's size"),
    "tracing": Advice("on: CPU for each publish that is recorded", "the tracing system"),
    "log_format": Advice("`console` in a collector: lines it can't read", "the log"),
    "access_lines": Advice(
        "too large: a storm of clients becomes a storm of log lines", "the log's size"
    ),
}
