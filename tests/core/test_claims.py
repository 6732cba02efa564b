"""Streams that end because their right to be there does: expired, renewed, revoked."""

import random
import time
from typing import Any

import pytest

from fastsse import _core
from tests.core.conftest import HEAD, Client, Hub, MakeHub, wait_until

ALICE, BOB = 11, 22
HOUR_MS = 3_600_000


def in_ms(ms: int) -> int:
    return time.time_ns() // 1_000_000 + ms


def claims(expires_ms: int = 0, subject: int = 0, token: int = 0, issued_s: int = 0) -> Any:
    return (expires_ms, subject, token, issued_s)


def is_open(hub: Hub, client: Client) -> bool:
    """Commands and a whole round of the table are behind us when a newer stream has expired."""
    probe = hub.connect(1, claims=claims(1))
    hub.wait_closed(probe)
    return not [n for n in hub.notices if n[0] == "closed" and n[1] == client.handle]


# ---- expiry --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
def test_a_stream_ends_between_events_when_its_token_expires(hub: Hub, chunked: bool) -> None:
    client = hub.connect(
        1, chunked=chunked, first=(_core.wire_frame(HEAD),), claims=claims(in_ms(HOUR_MS))
    )
    frame = hub.publish(b"x")
    client.read_until(client.wire(frame))
    hub.sender.advance_clock(HOUR_MS - 60_000)
    assert is_open(hub, client)
    hub.sender.advance_clock(60_000)
    assert hub.wait_closed(client)[3] == "expired"
    rest = client.read_to_end()[len(HEAD) + len(client.wire(frame)) :]
    assert b"retry: " in rest
    # The response is not over, and its client can tell.
    assert not rest.endswith(b"0\r\n\r\n")
    assert rest.rstrip(b"\r\n").split(b"\r\n")[-1].split(b"\n")[-1].startswith(b"retry: ")
    assert hub.count("closed_expired") == 2


def test_no_claims_and_no_expiry_never_expire(hub: Hub) -> None:
    clients = [hub.connect(1), hub.connect(1, claims=claims(0, ALICE))]
    hub.sender.advance_clock(HOUR_MS * 24 * 40)
    assert all(is_open(hub, client) for client in clients)


def test_an_expired_stream_gets_no_more_events(hub: Hub) -> None:
    client = hub.connect(1, claims=claims(1))
    hub.wait_closed(client)
    hub.publish(b"secret")
    assert b"secret" not in client.read_to_end()


def test_a_stream_that_takes_nothing_is_cut_when_it_expires(hub: Hub) -> None:
    client = hub.connect(1, send_buffer=4096, claims=claims(in_ms(HOUR_MS)))
    while hub.count("blocked") == 0:
        hub.publish(b"f" * 3000)
        hub.settle()
    hub.sender.advance_clock(HOUR_MS + 1000)
    assert hub.wait_closed(client)[3] in ("expired", "lagged")


def test_a_replaying_stream_expires_too(hub: Hub) -> None:
    page = _core.raw_frame(b"data: x\n\n")
    client = hub.connect(1, live=False, first=(page,), claims=claims(1))
    assert hub.wait_closed(client)[3] == "expired"
    assert not hub.sender.page(client.handle, page, True)


@pytest.mark.parametrize("faults", [{"write_limit_bytes": 1}, {"refuse_every": 2}])
def test_however_writes_are_cut_an_expired_stream_ends(
    make_hub: MakeHub, faults: dict[str, int]
) -> None:
    hub = make_hub(**faults)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, chunked=True, claims=claims(1))
    hub.publish(b"x" * 100)
    assert hub.wait_closed(client)[3] == "expired"


def test_a_thousand_that_expire_together_do_not_stop_the_others(make_hub: MakeHub) -> None:
    hub = make_hub(max_connections=1024, tick_ms=50)
    hub.sender.add_channel(1, [1])
    hub.sender.add_channel(2, [2])
    when = in_ms(HOUR_MS)
    leaving = [hub.connect(1, claims=claims(when)) for _ in range(1000)]
    staying = hub.connect(2, claims=claims(when + HOUR_MS))
    hub.sender.advance_clock(HOUR_MS)
    sent = [hub.publish(b"%d" % n, 2) for n in range(100)]
    staying.gets(*sent)
    for client in leaving:
        assert hub.wait_closed(client)[3] == "expired"
    assert is_open(hub, staying)


def test_the_loop_gets_one_notice_before_each_expiry(
    make_hub: MakeHub,
) -> None:
    hub = make_hub(expiry_notice_ms=60_000)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, claims=claims(in_ms(HOUR_MS)))
    told = ("expiring", client.handle)
    assert is_open(hub, client)
    assert told not in hub.take()
    hub.sender.advance_clock(HOUR_MS - 50_000)
    wait_until(lambda: told in hub.take())
    assert is_open(hub, client)
    assert hub.notices.count(told) == 1
    assert hub.sender.renew(client.handle, in_ms(HOUR_MS + 5_000), 5, 0)
    wait_until(lambda: hub.take().count(told) == 2)
    assert is_open(hub, client)


def test_notices_of_a_page_and_of_an_expiry_both_arrive(make_hub: MakeHub) -> None:
    hub = make_hub(expiry_notice_ms=HOUR_MS)
    hub.sender.add_channel(1, [1])
    page = _core.raw_frame(b"data: x\n\n")
    client = hub.connect(1, live=False, first=(page,), claims=claims(in_ms(HOUR_MS // 2)))
    client.gets(page)
    probe = hub.connect(1, claims=claims(1))
    client.peer.settimeout(None)
    wait_until(lambda: hub.count("closed_expired") == 1)
    hub.wait_closed(probe)
    assert ("page", client.handle) in hub.notices
    assert ("expiring", client.handle) in hub.notices


# ---- renewal -------------------------------------------------------------------------------------


def test_a_renewed_stream_lives_as_long_as_its_new_token(hub: Hub) -> None:
    client = hub.connect(1, claims=claims(in_ms(HOUR_MS), ALICE, 1))
    assert hub.sender.renew(client.handle, in_ms(2 * HOUR_MS), 2, 0)
    wait_until(lambda: hub.count("renewed") == 1)
    hub.sender.advance_clock(HOUR_MS + 60_000)
    assert is_open(hub, client)
    hub.sender.advance_clock(HOUR_MS)
    assert hub.wait_closed(client)[3] == "expired"
    assert not hub.sender.renew(client.handle, in_ms(4 * HOUR_MS), 2, 0)
    assert hub.count("renewed") == 1


def test_renewing_keeps_the_subject_and_changes_the_token(hub: Hub) -> None:
    client = hub.connect(1, claims=claims(0, ALICE, 1, 100))
    hub.sender.renew(client.handle, 0, 2, 200)
    hub.sender.revoke(token_hash=1)
    hub.sender.revoke(subject_hash=ALICE, issued_before_s=200)
    assert is_open(hub, client)
    hub.sender.revoke(subject_hash=ALICE, token_hash=2, issued_before_s=201)
    assert hub.wait_closed(client)[3] == "revoked"


def test_a_stale_renewal_does_not_touch_the_slots_next_stream(hub: Hub) -> None:
    gone = hub.connect(1, claims=claims(0, ALICE))
    gone.peer.close()
    hub.wait_closed(gone)
    client = hub.connect(1, claims=claims(0, BOB))
    assert not hub.sender.renew(gone.handle, 1, 0, 0)
    assert is_open(hub, client)


def test_an_anonymous_slot_inherits_no_claims(hub: Hub) -> None:
    gone = hub.connect(1, claims=claims(in_ms(HOUR_MS), ALICE))
    gone.peer.close()
    hub.wait_closed(gone)
    client = hub.connect(1)
    hub.sender.advance_clock(2 * HOUR_MS)
    hub.sender.revoke(subject_hash=ALICE)
    assert is_open(hub, client)


# ---- revocation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "ended"),
    [
        ({"subject_hash": ALICE}, {"a1", "a2"}),
        ({"token_hash": 1}, {"a1", "b1"}),
        ({"issued_before_s": 200}, {"a1", "b1", "undated"}),
        ({"subject_hash": ALICE, "token_hash": 1}, {"a1"}),
        ({"subject_hash": ALICE, "issued_before_s": 200}, {"a1"}),
        ({"subject_hash": ALICE, "token_hash": 2, "issued_before_s": 200}, set()),
        ({"subject_hash": 33}, set()),
    ],
)
def test_a_revocation_ends_those_that_meet_every_condition(
    hub: Hub, conditions: dict[str, int], ended: set[str]
) -> None:
    clients = {
        "a1": hub.connect(1, claims=claims(0, ALICE, 1, 100)),
        "a2": hub.connect(1, claims=claims(0, ALICE, 2, 200)),
        "b1": hub.connect(1, claims=claims(0, BOB, 1, 199)),
        "undated": hub.connect(1, claims=claims(0, 44, 4, 0)),
        "anonymous": hub.connect(1),
    }
    hub.sender.revoke(**conditions)
    for name in ended:
        assert hub.wait_closed(clients[name])[3] == "revoked"
    assert {name for name, client in clients.items() if not is_open(hub, client)} == ended
    assert hub.count("closed_revoked") == len(ended)


def test_a_revocation_is_of_what_was_claimed_before_it(hub: Hub) -> None:
    before = hub.connect(1, claims=claims(0, ALICE, 1))
    hub.sender.revoke(subject_hash=ALICE)
    after = hub.connect(1, claims=claims(0, ALICE, 2))
    hub.wait_closed(before)
    assert is_open(hub, after)


def test_a_revocation_that_names_nothing_is_refused(hub: Hub) -> None:
    with pytest.raises(ValueError, match="name something"):
        hub.sender.revoke()
    with pytest.raises(OverflowError):
        hub.sender.revoke(1 << 64)


@pytest.mark.parametrize("bad", [(1, 2, 3), (1, 2, 3, 4, 5), (-1, 0, 0, 0), (0, 1 << 64, 0, 0)])
def test_claims_that_are_none_are_refused_and_the_socket_stays(hub: Hub, bad: Any) -> None:
    handle = hub.sender.allocate()
    with pytest.raises((ValueError, OverflowError)):
        hub.sender.attach(handle, 0, 1, False, True, (), bad)
    hub.sender.release(handle)


def test_many_revocations_at_once_are_all_obeyed(make_hub: MakeHub) -> None:
    """More than one walk looks for."""
    hub = make_hub(max_connections=300)
    hub.sender.add_channel(1, [1])
    clients = [hub.connect(1, claims=claims(0, n, n)) for n in range(1, 251)]
    for n in range(1, 251, 2):
        hub.sender.revoke(subject_hash=n)
    for client in clients[::2]:
        assert hub.wait_closed(client)[3] == "revoked"
    assert is_open(hub, clients[1])
    assert hub.count("closed_revoked") == 125


def test_memory_of_unfinished_revocations_is_freed(make_hub: MakeHub) -> None:
    hub = make_hub()
    for n in range(1, 1000):
        hub.sender.revoke(token_hash=n)
    hub.stop()


class _Race:
    """Streams with claims, and a model of which of them must have ended, and why."""

    def __init__(self, hub: Hub, seed: int) -> None:
        self.hub = hub
        self.dice = random.Random(seed)
        self.now_ms = in_ms(0)
        #: Of each open stream: end in ms, hashes of subject and token, time of issue.
        self.rights: dict[Client, list[int]] = {}
        self.over: dict[Client, set[str]] = {}
        #: As `rights`, of clients that hung up. The sender may see a revocation first.
        self.hung_up: dict[Client, list[int]] = {}

    def step(self) -> None:
        """Does one thing by chance."""
        what = self.dice.random()
        client = self.dice.choice(list(self.rights)) if self.rights else None
        if what < 0.4 and len(self.rights) < 60:
            self._attach()
        elif what < 0.55 and client:
            self._renew(client)
        elif what < 0.65:
            self._revoke()
        elif what < 0.7 and client:
            client.peer.close()
            self.hung_up[client] = self.rights[client]
            self._lose(client, "client_closed")
            self.over[client].add("reset")
        elif what < 0.75:
            self._let_an_hour_pass()
        else:
            self.hub.publish(b"x" * self.dice.randrange(40))

    def _attach(self) -> None:
        dice = self.dice
        now = [
            dice.choice([0, self.now_ms + dice.randrange(1, 40) * HOUR_MS]),
            dice.randrange(1, 6),
            dice.randrange(1, 9),
            dice.randrange(100),
        ]
        self.rights[self.hub.connect(1, chunked=dice.random() < 0.5, claims=tuple(now))] = now

    def _renew(self, client: Client) -> None:
        end_ms = self.now_ms + self.dice.randrange(2, 40) * HOUR_MS
        token = self.dice.randrange(1, 9)
        assert self.hub.sender.renew(client.handle, end_ms, token, 50)
        self.rights[client] = [end_ms, self.rights[client][1], token, 50]

    def _revoke(self) -> None:
        dice = self.dice
        by = [dice.choice([0, dice.randrange(1, 6)]), dice.randrange(1, 9), dice.choice([0, 60])]
        self.hub.sender.revoke(*by)
        for each, right in list(self.rights.items()):
            if _is_named(by, right):
                self._lose(each, "revoked")
        for each, right in self.hung_up.items():
            if _is_named(by, right):
                self.over[each].add("revoked")

    def _let_an_hour_pass(self) -> None:
        self.hub.settle()
        self.hub.wait_closed(self.hub.connect(1, claims=claims(1)))
        # Revoked streams have ended by now. Those that expire in this step end for that reason.
        self.wait_for_the_ended()
        self.hub.sender.advance_clock(HOUR_MS)
        self.now_ms += HOUR_MS
        for each, (expires, *_) in list(self.rights.items()):
            if expires and expires <= self.now_ms:
                self._lose(each, "expired")
        self.wait_for_the_ended()

    def wait_for_the_ended(self) -> None:
        """Checks the reason of each end."""
        for client, reasons in self.over.items():
            assert self.hub.wait_closed(client)[3] in reasons
        self.hung_up.clear()

    def _lose(self, client: Client, reason: str) -> None:
        self.rights.pop(client)
        self.over[client] = {reason}


def _is_named(by: list[int], right: list[int]) -> bool:
    """Whether a revocation by subject, token and time of issue is of these claims."""
    _, subject, token, issued = right
    return by[0] in (0, subject) and by[1] == token and (not by[2] or issued < by[2])


@pytest.mark.parametrize("seed", range(4))
def test_in_any_race_exactly_the_streams_without_a_right_end(make_hub: MakeHub, seed: int) -> None:
    """A model: attach, renew, revoke, expire, hang up, in any order, writes cut on odd seeds."""
    hub = make_hub(
        max_connections=200,
        tick_ms=1,
        write_limit_bytes=seed % 2 * 3,
        max_lag_ms=4_000_000_000,  # hours go by while no client reads
    )
    hub.sender.add_channel(1, [1])
    race = _Race(hub, seed)
    for _ in range(600):
        race.step()
    race.wait_for_the_ended()
    assert is_open(hub, next(iter(race.rights)))
    closed = {n[1] for n in hub.notices if n[0] == "closed"}
    assert not closed & {client.handle for client in race.rights}


def test_claims_cost_nothing_without_tokens(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.sender.add_channel(1, [1])
    hub.settle()
    wait_until(lambda: hub.count("channels") == 1)
    before = hub.sender.memory_bytes
    hub.connect(1)
    hub.wait_count("connections", 1)
    hub.settle()
    plain = hub.sender.memory_bytes - before
    hub.connect(1, claims=claims(0, ALICE, 1, 1))
    hub.wait_count("connections", 2)
    assert hub.sender.memory_bytes - before <= 2 * plain + 64, "the table is not in the heap"
