"""Proxies: how an answer shows that it passed one, and which of its settings fixes what.

Only what the proxies' own documents say; tuning.md's table is made of it.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple


class ProxyTrouble(StrEnum):
    """What a path can do to a stream."""

    BUFFERS = "holds events back"
    COMPRESSES = "compresses"
    SILENCE = "cuts silent streams"
    AGE = "cuts streams of a certain age"
    FORGETS = "drops Last-Event-ID"
    CACHES = "caches"


class Proxy(NamedTuple):
    """One kind of proxy. `marks`: a header and what its value holds, in lower case, any of which
    shows it; none: it does not show."""

    name: str
    marks: tuple[tuple[str, str], ...]
    remedies: Mapping[ProxyTrouble, str]


_T = ProxyTrouble

PROXIES: tuple[Proxy, ...] = (
    Proxy(
        "nginx",
        (("server", "nginx"), ("server", "openresty"), ("via", "nginx")),
        {
            _T.BUFFERS: "proxy_buffering off; (or no proxy_ignore_headers X-Accel-Buffering: the "
            "server asks for it itself)",
            _T.COMPRESSES: "gzip off; (or take text/event-stream and * out of gzip_types)",
            _T.SILENCE: "proxy_read_timeout 1h; (60s unless set)",
            _T.AGE: "nothing in nginx does that; look in front of it",
            _T.FORGETS: 'no proxy_pass_request_headers off;, no proxy_set_header Last-Event-ID "";',
            _T.CACHES: "proxy_cache off;",
        },
    ),
    Proxy(
        "ingress-nginx",
        (),
        {
            _T.BUFFERS: 'annotation nginx.ingress.kubernetes.io/proxy-buffering: "off"',
            _T.COMPRESSES: 'use-gzip: "false" or gzip-types in the ConfigMap',
            _T.SILENCE: 'annotation nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"',
            _T.AGE: "worker-shutdown-timeout in the ConfigMap, if it follows each reload",
        },
    ),
    Proxy(
        "HAProxy",
        (("via", "haproxy"), ("server", "haproxy")),
        {
            _T.BUFFERS: "it passes answers on as they come; look for a filter (compression, "
            "Lua, SPOE) on the backend",
            _T.COMPRESSES: "no text/event-stream in compression type",
            _T.SILENCE: "timeout server 1h and timeout client 1h; in mode tcp timeout tunnel 1h",
            _T.FORGETS: "no http-request del-header Last-Event-ID",
            _T.CACHES: "no http-request cache-use for the path",
        },
    ),
    Proxy(
        "Apache",
        (("server", "apache"), ("via", "apache")),
        {
            _T.BUFFERS: "ProxyPass … flushpackets=on",
            _T.COMPRESSES: 'SetEnvIf Request_URI "^/events" no-gzip no-brotli',
            _T.SILENCE: "ProxyPass … timeout=3600 (else ProxyTimeout, 60 s)",
            _T.FORGETS: "no RequestHeader unset Last-Event-ID",
            _T.CACHES: "CacheDisable /events",
        },
    ),
    Proxy(
        "Caddy",
        (("server", "caddy"), ("via", "caddy")),
        {
            _T.BUFFERS: "reverse_proxy with flush_interval -1, and no encode for the path",
            _T.COMPRESSES: "encode with a matcher that leaves the path out",
            _T.SILENCE: "no read_timeout in reverse_proxy's transport http",
            _T.AGE: "no stream_timeout in reverse_proxy, no write timeout in servers",
            _T.FORGETS: "no header_up -Last-Event-ID",
        },
    ),
    Proxy(
        "Traefik",
        (),
        {
            _T.BUFFERS: "no buffering middleware; responseForwarding.flushInterval of the service",
            _T.COMPRESSES: "compress middleware: excludedContentTypes: text/event-stream",
            _T.AGE: "respondingTimeouts.writeTimeout: 0 on the entry point",
            _T.FORGETS: "no customRequestHeaders that empties Last-Event-ID",
        },
    ),
    Proxy(
        "Envoy, Istio",
        (("server", "envoy"), ("x-envoy-upstream-service-time", "")),
        {
            _T.BUFFERS: "no buffer filter on the route",
            _T.COMPRESSES: "compressor filter: content_type without text/event-stream",
            _T.SILENCE: "idle_timeout (stream_idle_timeout, 5 min) above the heartbeat",
            _T.AGE: "timeout: 0s on the route (15 s unless set)",
            _T.FORGETS: "no request_headers_to_remove: last-event-id",
        },
    ),
    Proxy(
        "Cloudflare",
        (("server", "cloudflare"), ("cf-ray", "")),
        {
            _T.BUFFERS: "response buffering off; quick tunnels (trycloudflare) hold GET streams "
            "back, named ones with their own configuration do not have to",
            _T.COMPRESSES: "a compression rule for the path: off; keep the server's "
            "Cache-Control: no-transform",
            _T.SILENCE: "100 s without a byte end a stream: heartbeat well below it",
            _T.FORGETS: "no transform rule that removes Last-Event-ID",
            _T.CACHES: "a cache rule for the path: bypass",
        },
    ),
    Proxy(
        "AWS CloudFront",
        (("x-amz-cf-id", ""), ("via", "cloudfront")),
        {
            _T.COMPRESSES: "compress objects automatically: no",
            _T.SILENCE: "origin response timeout (30 s unless set) above the heartbeat",
            _T.FORGETS: "an origin request policy that forwards it (AllViewer)",
            _T.CACHES: "cache policy CachingDisabled",
        },
    ),
    Proxy(
        "AWS load balancer",
        (("server", "awselb"), ("set-cookie", "awsalb")),
        {
            _T.SILENCE: "idle_timeout.timeout_seconds (60 unless set) above the heartbeat",
            _T.AGE: "a target that was taken out ends after deregistration_delay",
        },
    ),
    Proxy(
        "Google Cloud load balancer",
        (("via", "1.1 google"),),
        {_T.AGE: "timeoutSec of the backend service (30 s unless set) bounds the whole stream"},
    ),
    Proxy(
        "Varnish, Fastly",
        (("via", "varnish"), ("x-varnish", ""), ("x-served-by", "cache-")),
        {
            _T.BUFFERS: "beresp.do_stream = true, or return (pipe)",
            _T.COMPRESSES: "beresp.do_gzip = false for the path",
            _T.SILENCE: "between_bytes_timeout above the heartbeat",
            _T.CACHES: "return (pass)",
        },
    ),
    Proxy(
        "Heroku",
        (("via", "vegur"), ("server", "heroku")),
        {_T.SILENCE: "55 s without a byte end a stream: heartbeat below it"},
    ),
)


def seen(headers: Mapping[str, str]) -> list[Proxy]:
    """The proxies that an answer's headers (names in lower case) show."""
    return [proxy for proxy in PROXIES if any(_shows(headers, *mark) for mark in proxy.marks)]


def _shows(headers: Mapping[str, str], name: str, held: str) -> bool:
    return name in headers and held in headers[name].lower()


def remedies(trouble: ProxyTrouble, headers: Mapping[str, str]) -> str:
    """What to set: at the proxies that show, else at every kind, a line each."""
    shown = [proxy for proxy in seen(headers) if trouble in proxy.remedies]
    return "\n".join(_lines(trouble, shown or list(PROXIES)))


def _lines(trouble: ProxyTrouble, proxies: list[Proxy]) -> Iterator[str]:
    for proxy in proxies:
        if trouble in proxy.remedies:
            yield f"{proxy.name}: {proxy.remedies[trouble]}"
