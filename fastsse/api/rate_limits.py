"""Rate limits per client, by its address and by the subject of its token, in the whole service.

Rates are token buckets that hold the amount of two seconds. The cost of a replay is known only
after it, so it is subtracted then. A client with a negative bucket can't open a stream with a
replay until the bucket has refilled. The number of accounts is bounded. The one unused longest is
evicted first, with its used amounts, but the count of open streams is never lost.

Over 400 lines: limits of streams and limits of requests are judged by the same accounts.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, NamedTuple

from fastsse.api.access import Access, Known, Later, Then
from fastsse.auth.rights import Rights
from fastsse.config import LimitOptions
from fastsse.control.usage import Account, Usage, UsageClient
from fastsse.http.client_address import ClientAddresses, account_name
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.router import Exchange
from fastsse.refusal_reasons import CLIENT_LIMITS

__all__ = ["ACCOUNTS_MAX", "LimitedAccess", "Owner", "RateLimits", "RequestLimits"]

ACCOUNTS_MAX: Final = 100_000
BURST_S: Final = 2.0
_KINDS: Final = ("streams", "opens", "publishes", "requests", "replay")
# Longer subjects are stored as their hash.
_NAME_MAX: Final = 64
# Seconds for which a stream in another worker counts as ending after it was asked to end.
# The most such streams that are remembered.
_ELSEWHERE_S: Final = 1.0
_ELSEWHERE_MAX: Final = 1_000


class _Account:
    """The usage of one client: open streams, and the levels of its four buckets."""

    __slots__ = ("at_s", "opens", "publishes", "replay", "requests", "streams")

    def __init__(self, ledger: "_Ledger", now_s: float) -> None:
        self.streams = 0
        self.opens = _full(ledger.opens)
        self.publishes = _full(ledger.publishes)
        self.requests = _full(ledger.requests)
        self.replay = _full(ledger.replay)
        self.at_s = now_s


class _Ledger:
    """The accounts of one kind: addresses or subjects."""

    __slots__ = (
        "_accounts",
        "active",
        "opens",
        "publishes",
        "replay",
        "requests",
        "side",
        "streams",
    )

    def __init__(self, side: str, options: LimitOptions) -> None:
        self.side = side
        limits: list[int] = [getattr(options, f"{side}_{kind}") for kind in _KINDS]
        self.streams, self.opens, self.publishes, self.requests, self.replay = limits
        self.active = any(limits)
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def account(self, name: str, now_s: float) -> _Account:
        """The account with a name; its buckets are refilled up to now. O(1)."""
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account(self, now_s)
            self._forget()
            return account
        self._accounts.move_to_end(name)
        span_s = now_s - account.at_s
        account.at_s = now_s
        account.opens = _filled(account.opens, self.opens, span_s)
        account.publishes = _filled(account.publishes, self.publishes, span_s)
        account.requests = _filled(account.requests, self.requests, span_s)
        account.replay = _filled(account.replay, self.replay, span_s)
        return account

    def find(self, name: str) -> _Account | None:
        """The account with a name, or None."""
        return self._accounts.get(name)

    def _forget(self) -> None:
        """Enforces the bound: checks two of the oldest accounts for each that was added."""
        for _ in range(2):
            if len(self._accounts) <= ACCOUNTS_MAX:
                return
            name, account = next(iter(self._accounts.items()))
            if account.streams:
                self._accounts.move_to_end(name)
            else:
                del self._accounts[name]


class Owner(NamedTuple):
    """The accounts of a request, by name; a name is empty if its kind is not limited."""

    address: str
    subject: str


class RateLimits:
    """The limits of one worker. Loop thread only.

    Arguments:
        options: the limits.
        time: loop time, s.

    `usage`, once set, reports the usage to other workers. `on_others_used` receives theirs.
    """

    __slots__ = (
        "_addresses",
        "_ending_elsewhere",
        "_evicted",
        "_evicts",
        "_first_pages",
        "_held",
        "_owners",
        "_sides",
        "_subjects",
        "_time",
        "active",
        "end_stream",
        "refused",
        "usage",
    )

    def __init__(self, options: LimitOptions, time: Callable[[], float]) -> None:
        self._time = time
        self._addresses = _Ledger("address", options)
        self._subjects = _Ledger("subject", options)
        self._sides = (self._addresses, self._subjects)
        self._owners: dict[int, Owner] = {}
        self._first_pages: dict[int, int] = {}
        #: Whether any limit is set.
        self.active = self._addresses.active or self._subjects.active
        self.usage: UsageClient | None = None
        #: Ends a stream to make room for a newer one of the same client.
        self.end_stream: Callable[[int], object] = lambda stream: None
        self._evicts = options.over_limit == "oldest"
        # Used with `evict`: the streams of each account, oldest first, without evicted ones; and
        # the evicted ones, until they are closed.
        self._held: dict[Account, dict[int, None]] = {}
        self._evicted: set[int] = set()
        # Accounts with a stream in another worker that was asked to end, until it has ended.
        self._ending_elsewhere: deque[tuple[float, Account]] = deque(maxlen=_ELSEWHERE_MAX)
        #: Number of refused requests, by limit.
        self.refused: Counter[str] = Counter()

    def owner(self, host: str, subject: str | None) -> Owner:
        """The accounts of a request."""
        address = account_name(host) if self._addresses.active else ""
        if subject is None or not self._subjects.active:
            return Owner(address, "")
        # A hash can't equal a short subject, because it is longer.
        long = len(subject) > _NAME_MAX
        return Owner(address, blake2b(subject.encode()).hexdigest() if long else "=" + subject)

    def may_open(self, owner: Owner, *, replays: bool) -> bool:
        """Counts a stream for the owner if its limits allow it; otherwise returns False and changes
        nothing. O(1)."""
        now_s = self._time()
        accounts = self._accounts(owner, now_s)
        for ledger, account in accounts:
            kind = _stream_objection(ledger, account, replays, self._evicts)
            if kind is not None:
                self.refused[f"{ledger.side}_{kind}"] += 1
                return False
        for _, account in accounts:
            account.opens -= 1
        self._share(owner, opens=1)
        return True

    def on_stream_opened(self, stream: int, owner: Owner) -> None:
        """Records an open stream that `may_open` allowed; it counts until `on_stream_closed`."""
        self._owners[stream] = owner
        first_bytes = self._first_pages.pop(stream, 0)
        for _, account in self._accounts(owner, self._time()):
            account.streams += 1
            account.replay -= first_bytes
        self._share(owner, streams=1, replay=first_bytes)
        if self._evicts:
            self._make_room(stream, owner)

    def end_oldest(self, account: Account) -> None:
        """Ends the oldest stream of an account in this worker, to make room for one in another
        worker."""
        for stream in self._held.get(account, {}):
            self._evict(stream)
            return

    def _make_room(self, newest: int, owner: Owner) -> None:
        """Ends streams of each account of `owner` that exceeds its limit with the newest: the
        oldest ones here, then one elsewhere.

        There may be more than one, because another worker or node has reported its own late."""
        for side, name in enumerate(owner):
            if not name:
                continue
            held = self._held.setdefault((side, name), {})
            held[newest] = None
            excess = self._excess(side, name)
            while excess > 0 and (oldest := next(iter(held))) != newest:
                self._evict(oldest)
                excess -= 1
            if excess > 0 and self.usage is not None:
                self._ending_elsewhere.append((self._time() + _ELSEWHERE_S, (side, name)))
                self.usage.end_oldest((side, name))

    def _excess(self, side: int, name: str) -> int:
        """How many streams an account has above its limit, without those that are ending."""
        account, limit = self._sides[side].find(name), self._sides[side].streams
        if account is None or not limit:
            return 0
        now_s = self._time()
        while self._ending_elsewhere and self._ending_elsewhere[0][0] <= now_s:
            self._ending_elsewhere.popleft()
        here = sum(name == self._owners[stream][side] for stream in self._evicted)
        elsewhere = sum(one == (side, name) for _, one in self._ending_elsewhere)
        return account.streams - here - elsewhere - limit

    def _evict(self, stream: int) -> None:
        self._drop_held(stream)
        self._evicted.add(stream)
        self.refused["evicted"] += 1
        self.end_stream(stream)

    def _drop_held(self, stream: int) -> None:
        for account in enumerate(self._owners[stream]):
            held = self._held.get(account)
            if held is not None:
                held.pop(stream, None)
                if not held:
                    del self._held[account]

    def on_stream_closed(self, stream: int) -> None:
        """Called when a stream has ended. O(1)."""
        self._first_pages.pop(stream, None)
        if self._evicts and stream in self._owners:
            self._drop_held(stream)
            self._evicted.discard(stream)
        owner = self._owners.pop(stream, None)
        if owner is None:
            return
        for ledger, name in zip(self._sides, owner, strict=True):
            account = ledger.find(name) if name else None
            if account is not None:
                account.streams -= 1
        self._share(owner, streams=-1)

    def on_replayed(self, stream: int, sent_bytes: int) -> None:
        """Called when history was sent to a stream. The first page may come before
        `on_stream_opened`."""
        owner = self._owners.get(stream)
        if owner is None:
            self._first_pages[stream] = sent_bytes
        else:
            for _, account in self._accounts(owner, self._time()):
                account.replay -= sent_bytes
            self._share(owner, replay=sent_bytes)

    def publish_wait_s(self, owner: Owner) -> float:
        """Counts a publish for the owner and returns 0, or counts nothing and returns the seconds
        until one is allowed."""
        return self._wait_s(owner, "publishes")

    def takes_publish(self, owner: Owner) -> bool:
        """Counts a publish for the owner and returns True, or counts nothing, not even a refusal,
        and returns False."""
        accounts = self._accounts(owner, self._time())
        if any(ledger.publishes and account.publishes < 1 for ledger, account in accounts):
            return False
        for _, account in accounts:
            account.publishes -= 1
        self._share(owner, publishes=1)
        return True

    def publish_delay_s(self, owner: Owner) -> float:
        """Seconds until a publish of the owner is allowed; counts nothing."""
        delays_s = [
            (1 - account.publishes) / ledger.publishes
            for ledger, account in self._accounts(owner, self._time())
            if ledger.publishes
        ]
        return max(0.0, *delays_s) if delays_s else 0.0

    def published_more(self, owner: Owner, events: int) -> None:
        """Subtracts the events of an allowed publish beyond the first; the bucket may become
        negative."""
        for _, account in self._accounts(owner, self._time()):
            account.publishes -= events
        if events:
            self._share(owner, publishes=events)

    def request_wait_s(self, owner: Owner) -> float:
        """As `publish_wait_s`, for a request that neither publishes nor opens a stream."""
        return self._wait_s(owner, "requests")

    def on_others_used(self, use: Usage) -> None:
        """Called with the usage of a client in another worker."""
        account = self._sides[use.side].account(use.name, self._time())
        account.streams += use.streams
        account.opens -= use.opens
        account.publishes -= use.publishes
        account.requests -= use.requests
        account.replay -= use.replay

    def counters(self) -> dict[str, int]:
        """Refused requests, under the names of the metrics."""
        return {f"limited_{limit}": self.refused[limit] for limit in CLIENT_LIMITS}

    def _wait_s(self, owner: Owner, kind: str) -> float:
        accounts = self._accounts(owner, self._time())
        for ledger, account in accounts:
            rate, left = getattr(ledger, kind), getattr(account, kind)
            if rate and left < 1:
                self.refused[f"{ledger.side}_{kind}"] += 1
                return float((1 - left) / rate)
        for _, account in accounts:
            setattr(account, kind, getattr(account, kind) - 1)
        self._share(owner, **{kind: 1})
        return 0.0

    def _share(self, owner: Owner, **amounts: int) -> None:
        if self.usage is not None:
            for side, name in enumerate(owner):
                if name:
                    self.usage.used(Usage(side, name, **amounts))

    def _accounts(self, owner: Owner, now_s: float) -> list[tuple[_Ledger, _Account]]:
        return [
            (ledger, ledger.account(name, now_s))
            for ledger, name in zip(self._sides, owner, strict=True)
            if name
        ]


def _stream_objection(
    ledger: _Ledger, account: _Account, replays: bool, evicts: bool
) -> str | None:
    if not evicts and ledger.streams and account.streams >= ledger.streams:
        return "streams"
    if ledger.opens and account.opens < 1:
        return "opens"
    if replays and ledger.replay and account.replay <= 0:
        return "replay"
    return None


def _full(rate: int) -> float:
    return max(1.0, rate * BURST_S)


def _filled(level: float, rate: int, span_s: float) -> float:
    return min(_full(rate), level + span_s * rate) if rate else level


class RequestLimits:
    """Counts requests for their clients. Loop thread only; each call is O(1).

    Arguments:
        clients: finds client addresses.
        rate_limits: the accounts.
    """

    def __init__(self, clients: ClientAddresses, rate_limits: RateLimits) -> None:
        self._clients = clients
        self._rate_limits = rate_limits

    @property
    def active(self) -> bool:
        """Whether any limit is set."""
        return self._rate_limits.active

    def take_publish(self, request: Request) -> None:
        """Counts a publish for its address, and for its subject if known. Raises Problem (429)."""
        _refuse(self._rate_limits.publish_wait_s(self._owner(request, request.rights)), "publishes")

    def takes_publish(self, host: str, rights: Rights | None, forwarded: bytes | None) -> bool:
        """As `take_publish`, without a refusal: False if the client is over a limit, and nothing
        was counted then."""
        client = self._clients.address(host, forwarded)
        owner = self._rate_limits.owner(client, None if rights is None else rights.subject)
        return self._rate_limits.takes_publish(owner)

    def take_publish_late(self, request: Request) -> None:
        """Counts a publish for its subject, if that was unknown at `take_publish`. Raises Problem
        (429)."""
        owner = self._owner(request, request.rights)._replace(address="")
        _refuse(self._rate_limits.publish_wait_s(owner), "publishes")

    def published_more(self, request: Request, events: int) -> None:
        """Counts the events of a publish beyond the first."""
        self._rate_limits.published_more(self._owner(request, request.rights), events)

    def publish_delay_s(self, request: Request) -> float:
        """Seconds until the next events of a streamed publish are allowed."""
        return self._rate_limits.publish_delay_s(self._owner(request, request.rights))

    def take_request(self, request: Request, rights: Rights | None) -> None:
        """Counts a request that neither publishes nor opens a stream. Raises Problem (429)."""
        if self._rate_limits.active:
            _refuse(self._rate_limits.request_wait_s(self._owner(request, rights)), "asks")

    def _owner(self, request: Request, rights: Rights | None) -> Owner:
        client = self._clients.address(request.peer, request.headers.get(b"x-forwarded-for"))
        return self._rate_limits.owner(client, None if rights is None else rights.subject)


class LimitedAccess:
    """Access to paths that neither publish nor open a stream: counts each allowed request."""

    def __init__(self, access: Access, request_limits: RequestLimits) -> None:
        self._access: Final = access
        self._request_limits: Final = request_limits

    def subscriber(
        self, request: Request, exchange: Exchange, then: Then, later: Later | None = None
    ) -> None:
        """As `Access`; `then` is not called for a client over a limit."""
        self._access.subscriber(request, exchange, self._counting(request, then), later)

    def check_again(self, rights: Rights | None) -> None:
        """As `Access`."""
        self._access.check_again(rights)

    def admit_publisher(self, request: Request) -> None:
        """As `Access`."""
        self._access.admit_publisher(request)

    def publisher(self, request: Request, exchange: Exchange, then: Then) -> None:
        """As `Access`; `then` is not called for a client over a limit."""
        self._access.publisher(request, exchange, self._counting(request, then))

    def known_publisher(self, header: bytes | None) -> Known | None:
        """As `Access`."""
        return self._access.known_publisher(header)

    def _counting(self, request: Request, then: Then) -> Then:
        def counted(rights: Rights | None) -> None:
            self._request_limits.take_request(request, rights)
            then(rights)

        return counted


def _refuse(wait_s: float, does: str) -> None:
    if wait_s:
        after = b"Retry-After: %d\r\n" % math.ceil(wait_s)
        raise Problem(429, f"This client {does} too much.", header_lines=after)
