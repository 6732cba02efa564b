"""The guard: gives routes the rights of a request."""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

from fastsse.auth.claims import Expected
from fastsse.auth.credentials import Credential, credentials, page_origin
from fastsse.auth.jwks import FetchedKeySet, FileKeySet, KeySet, KeysMissing
from fastsse.auth.revocations import SUBJECT as REVOCATIONS
from fastsse.auth.revocations import Revocations, RevocationService
from fastsse.auth.rights import ANONYMOUS, Rights
from fastsse.auth.tickets import SUBJECT as TICKETS
from fastsse.auth.tickets import Opened, Tickets, TicketService
from fastsse.auth.verifier import KeyRing, Side, Verifier
from fastsse.config import ConfigError, OptionProblem
from fastsse.config.kinds import MASK
from fastsse.config.tokens import TokenOptions
from fastsse.control.service import ControlClient, MakeService
from fastsse.errors import FastsseError, Unauthorised
from fastsse.jwtkeys import ASYMMETRIC, PATH_STARTS, Key, check_key, read_key

__all__ = ["SERVICES", "Guard", "Pending", "Shown", "check_key_set_file", "make_guard"]

#: The node's control services that guards need, by subject.
SERVICES: Final[Mapping[str, MakeService]] = {
    TICKETS: TicketService,
    REVOCATIONS: RevocationService,
}

Answered = Callable[[Rights | FastsseError | None], None]


class Pending(FastsseError):
    """The rights are not known yet: a ticket must be opened, or keys or revocations fetched.

    Nothing has started. `wait(done)` starts it and calls `done` once, within the call or later, on
    the loop thread. The argument is the rights (None for a subscriber if rights are not used), or
    an error: Unauthorised, or Refused when the fetch failed.
    """

    def __init__(self, wait: Callable[[Answered], None]) -> None:
        super().__init__("pending")
        self.wait: Final = wait
        #: The ticket that was opened, before `done` is called with its rights.
        self.opened: Opened | None = None


class Shown(NamedTuple):
    """The `Authorization` header of a publisher, its rights, and their validity: until a time, and
    while neither keys nor revocations change."""

    header: bytes
    rights: Rights
    until_s: float
    keys: int
    revoked: int


class Guard:
    """Reads the tokens of requests. Loop thread only.

    Arguments:
        options: the token options.
        verifier: verifies tokens.
        control: the control client of the worker, for tickets and revocations.
        origins: the pages that may publish by cookie.
        now_s: unix seconds.
    """

    def __init__(
        self,
        options: TokenOptions,
        verifier: Verifier,
        control: ControlClient,
        origins: Container[bytes] = (),
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._anonymous = options.anonymous
        self._cookie = options.jwt_cookie.encode()
        self._origins = origins
        self._now_s = now_s
        self.verifier: Final = verifier
        self.tickets: Final = Tickets(control, options.ticket_lifetime, now_s)
        self.revocations: Final = Revocations(control, now_s)

    def subscriber(
        self,
        headers: Mapping[bytes, bytes],
        pairs: Sequence[tuple[str, str]],
        *,
        mercure: bool = False,
        network: str = "",
    ) -> Rights:
        """The rights of a subscriber; ANONYMOUS without a token, if that is allowed.

        `network` is the address prefix of the client, for tickets. Raises Unauthorised or Pending.
        O(1) for a token in the cache.
        """
        shown = credentials(headers, pairs, self._cookie, mercure=mercure)
        if shown is None:
            if not self._anonymous:
                raise Unauthorised("Subscribing requires a token: Authorization: Bearer <token>.")
            return ANONYMOUS
        if shown.source == "ticket":
            raise self._open(shown.text, headers, network)
        return self._rights(shown, "subscribe")

    def publisher(
        self,
        headers: Mapping[bytes, bytes],
        pairs: Sequence[tuple[str, str]],
        *,
        mercure: bool = False,
    ) -> Rights:
        """The rights of a publisher. Its topics are not checked; call `check_publish` of the rights
        for that. Raises Unauthorised or Pending. Cost as `subscriber`."""
        shown = credentials(headers, pairs, self._cookie, mercure=mercure)
        if shown is None:
            raise Unauthorised("Publishing requires a token: Authorization: Bearer <token>.")
        if shown.source == "ticket":
            raise Unauthorised("Publishing requires a token; a ticket only opens streams.")
        if shown.source == "cookie":
            self._check_origin(headers)
        return self._rights(shown, "publish")

    def operator(self, header: bytes | None) -> Rights:
        """The rights of an operator with this `Authorization` header; no other place is looked at,
        because a page could have the browser send it. Its role is not checked. Raises Unauthorised
        or Pending."""
        shown = credentials({} if header is None else {b"authorization": header}, (), b"")
        if shown is None:
            raise Unauthorised(
                "The console requires the console password, or a token with the claim "
                "fastsse.console: Authorization: Bearer <token>."
            )
        return self._rights(shown, "console")

    def note(self, header: bytes, rights: Rights, *, mercure: bool = False) -> Shown:
        """The argument of `again`, for the rights that `publisher` has just returned for this
        header. O(bytes), like the verification."""
        token = credentials({b"authorization": header}, (), b"", mercure=mercure)
        assert token is not None
        until_s = self.verifier.until_s(token.text, "publish")
        keys = self.verifier.generation("publish")
        return Shown(header, rights, until_s, keys, self.revocations.generation)

    def again(self, shown: Shown) -> Rights | None:
        """The rights that `publisher` would return again; None if `publisher` must be called.
        O(1)."""
        holds = (
            self._now_s() < shown.until_s
            and shown.keys == self.verifier.generation("publish")
            and shown.revoked == self.revocations.generation
        )
        return shown.rights if holds else None

    def check_again(self, rights: Rights) -> None:
        """Raises Unauthorised for the rights of a token that has expired or was revoked since.
        O(1)."""
        if rights.has_expired(self._now_s()):
            raise Unauthorised("The token has expired (exp).")
        self._unless_revoked(rights)

    def close(self) -> None:
        """Cancels pending fetches."""
        self.verifier.close()

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """Checks that the page may publish by cookie: browsers send cookies with requests of any
        page."""
        origin = page_origin(headers)
        if origin is None:
            raise Unauthorised("A publish by cookie requires the header Origin or Referer.")
        if origin not in self._origins:
            raise Unauthorised("Pages of this origin may not publish by cookie (publish_origins).")

    def _rights(self, shown: Credential, side: Side) -> Rights:
        if not self.revocations.known:
            learn = self.revocations.learn
            raise Pending(partial(self._again, learn, shown, side))
        try:
            rights = self.verifier.verify(shown.text, side)
        except KeysMissing as missing:
            raise Pending(partial(self._again, missing.fetch, shown, side)) from None
        return self._unless_revoked(rights)

    def _unless_revoked(self, rights: Rights) -> Rights:
        if self.revocations.covers(rights):
            raise Unauthorised("The token was revoked.")
        return rights

    def _again(
        self,
        fetch: Callable[[Callable[[FastsseError | None], None]], None],
        shown: Credential,
        side: Side,
        done: Answered,
    ) -> None:
        """Fetches what is missing and tries again, until nothing is missing: revocations first,
        then keys. This ends, because after a fetch a key is known or refused."""

        def fetched(error: FastsseError | None) -> None:
            if error is not None:
                done(error)
                return
            try:
                rights = self._rights(shown, side)
            except Pending as pending:
                pending.wait(done)
            except FastsseError as refusal:
                done(refusal)
            else:
                done(rights)

        fetch(fetched)

    def _open(self, ticket: bytes, headers: Mapping[bytes, bytes], network: str) -> Pending:
        """Prepares to open a ticket. Revocations are fetched first."""

        def wait(done: Answered) -> None:
            def opened(outcome: Opened | FastsseError) -> None:
                if isinstance(outcome, FastsseError):
                    done(outcome)
                elif self.revocations.covers(outcome.rights):
                    done(Unauthorised("The token was revoked."))
                else:
                    pending.opened = outcome
                    done(outcome.rights)

            def learned(error: FastsseError | None) -> None:
                if error is not None:
                    done(error)
                else:
                    self.tickets.open(ticket, headers, network, opened)

            if self.revocations.known:
                learned(None)
            else:
                self.revocations.learn(learned)

        pending = Pending(wait)
        return pending


def make_guard(
    options: TokenOptions,
    control: ControlClient,
    origins: Container[bytes] = (),
    now_s: Callable[[], float] = time.time,
) -> Guard | None:
    """The guard for the options; None if no JWT key is set.

    Reads key files. Starts to fetch a key set, so call it on the loop that the guard uses. Raises
    ConfigError.
    """
    if not (options.publishers_need_tokens or options.subscribers_need_tokens):
        return None
    expected = Expected(
        frozenset(options.jwt_audience), frozenset(options.jwt_issuer), options.jwt_leeway
    )
    return Guard(options, Verifier(_rings(options), expected, now_s), control, origins, now_s)


def _rings(options: TokenOptions) -> dict[Side, KeyRing]:
    """The keys of each side: its own keys, or the common ones."""
    rings: dict[Side, KeyRing] = {}
    both: KeyRing | None = None
    for side, prefix in (("publish", "publisher_"), ("subscribe", "subscriber_")):
        if getattr(options, f"{prefix}jwt_key"):
            rings[side] = KeyRing(_keys(options, prefix))  # type: ignore[index]
        elif options.jwt_key or options.jwks_url:
            both = both or _common_ring(options)
            rings[side] = both  # type: ignore[index]
    if "publish" in rings:  # Keys that only sign subscribers' tokens make no operators.
        rings["console"] = rings["publish"]
    return rings


def _common_ring(options: TokenOptions) -> KeyRing:
    if options.jwks_url is None:
        return KeyRing(_keys(options, ""))
    algorithms = [name for name in options.jwt_algorithms or ASYMMETRIC if name in ASYMMETRIC]
    return KeyRing(_keys(options, ""), _key_set(options.jwks_url, algorithms), algorithms)


def check_key_set_file(options: TokenOptions) -> None:
    """Raises ConfigError when `jwks_url` names a file that is not a key set."""
    if options.jwks_url is not None and options.jwks_url.startswith(PATH_STARTS):
        _key_set(options.jwks_url, ASYMMETRIC)


def _key_set(url: str, algorithms: Sequence[str]) -> KeySet:
    if not url.startswith(PATH_STARTS):
        return FetchedKeySet(url, algorithms)
    try:
        return FileKeySet(url, algorithms)
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        allowed = f"a file with a key set ({why})"
        raise ConfigError([OptionProblem("jwks_url", url, "the options", allowed)]) from None


def _keys(options: TokenOptions, prefix: str) -> list[Key]:
    """The current key and the previous one."""
    algorithms: tuple[str, ...] = getattr(options, f"{prefix}jwt_algorithms")
    until = options.jwt_previous_until
    until_s = datetime.fromisoformat(until).timestamp() if until else None
    keys = []
    for name, end_s in ((f"{prefix}jwt_key", None), (f"{prefix}jwt_previous_key", until_s)):
        text = getattr(options, name)
        if text is not None:
            try:
                keys.append(check_key(read_key(text.get_secret_value()), algorithms, end_s))
            except ValueError as error:  # The file has changed since the options were read.
                raise ConfigError([OptionProblem(name, MASK, "the options", str(error))]) from None
    return keys
