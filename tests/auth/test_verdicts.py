"""How long what a guard said of a token holds, and what makes it an operator's."""

from pathlib import Path
from typing import Any

import pytest

from fastsse.auth.claims import Expected
from fastsse.auth.guard import Guard, Pending, check_key_set_file, make_guard
from fastsse.auth.revocations import Revocation
from fastsse.auth.token import TOKEN_BYTES_MAX
from fastsse.auth.verifier import KeyRing, Verifier
from fastsse.config import Config, ConfigError
from fastsse.errors import Unauthorised
from tests.auth.conftest import control, guard_of, verifier_of
from tests.auth.minting import OTHER_SECRET, SECRET, mint
from tests.auth.onenode import Node, bearer, got

NOW_S = 1_800_000_000.0


class Clock:
    """Unix seconds that only a test moves."""

    now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def guard_at(clock: Clock, **options: Any) -> Guard:
    guard = make_guard(Config(**options), control(), now_s=clock)
    assert guard is not None
    return guard


def claims(**more: Any) -> dict[str, Any]:
    return {"mercure": {"publish": ["*"]}, **more}


def shown_of(guard: Guard, raw: bytes) -> Any:
    (header,) = bearer(raw).values()
    return guard.note(header, guard.publisher(bearer(raw), []))


# --- A verdict that is asked for again


def test_a_verdict_holds_until_the_token_ends() -> None:
    clock = Clock()
    guard = guard_at(clock, jwt_key=SECRET)
    shown = shown_of(guard, mint(claims(exp=NOW_S + 10)))
    assert guard.again(shown) is shown.rights
    clock.now_s = NOW_S + 9.9
    assert guard.again(shown) is shown.rights
    clock.now_s = NOW_S + 10
    assert guard.again(shown) is None


def test_a_verdict_ends_when_the_tokens_are_forgotten() -> None:
    guard = guard_of(jwt_key=SECRET)
    shown = shown_of(guard, mint())
    guard.verifier.forget()
    assert guard.again(shown) is None
    assert guard.again(shown_of(guard, mint())) is not None


def test_a_verdict_ends_with_a_revocation_and_the_token_is_refused_then() -> None:
    guard = Node().one
    raw, other = mint(claims(jti="gone")), mint(claims(jti="stays"))
    shown, kept = shown_of(guard, raw), shown_of(guard, other)
    assert guard.again(shown) is shown.rights
    assert got(guard.revocations.revoke, Revocation.of_json(b'{"jti": "gone"}')) is None
    assert guard.again(shown) is None
    assert guard.again(kept) is None  # It is asked for again, and then it holds.
    with pytest.raises(Unauthorised, match="revoked"):
        guard.publisher(bearer(raw), [])
    assert guard.publisher(bearer(other), [])


def test_a_token_of_the_previous_key_ends_with_the_key() -> None:
    clock = Clock()
    guard = guard_at(
        clock,
        jwt_key=SECRET,
        jwt_previous_key=OTHER_SECRET,
        jwt_previous_until="2027-01-15T08:01:00Z",
    )
    raw, newer = mint(claims(exp=NOW_S + 600), key=OTHER_SECRET), mint(claims(exp=NOW_S + 600))
    shown = shown_of(guard, raw)
    assert shown.until_s == NOW_S + 60
    assert shown_of(guard, newer).until_s == NOW_S + 600
    clock.now_s = NOW_S + 60
    assert guard.again(shown) is None
    with pytest.raises(Unauthorised, match="signature"):
        guard.publisher(bearer(raw), [])
    assert guard.publisher(bearer(newer), [])


def test_a_token_that_ended_is_dropped_from_memory() -> None:
    clock = Clock()
    guard = guard_at(clock, jwt_key=SECRET)
    raw = mint(claims(exp=NOW_S + 10))
    guard.publisher(bearer(raw), [])
    assert guard.verifier.remembered == 1
    assert guard.verifier.until_s(raw, "publish") == NOW_S + 10
    clock.now_s = NOW_S + 10
    with pytest.raises(Unauthorised, match="expired"):
        guard.publisher(bearer(raw), [])
    assert guard.verifier.remembered == 0
    assert guard.verifier.until_s(raw, "publish") == 0


def test_memory_that_was_emptied_has_its_whole_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsse.auth import verifier as module

    verifier = verifier_of(jwt_key=SECRET)
    room_bytes = 4 * (module._RIGHTS_BYTES + 4 * len(mint(claims(jti="0"))))
    monkeypatch.setattr(module, "REMEMBERED_BYTES_MAX", room_bytes)
    for _ in range(3):
        for number in range(4):
            verifier.verify(mint(claims(jti=str(number))), "publish")
        assert verifier.remembered == 4
        verifier.forget()
        assert verifier.remembered == 0


def test_each_byte_of_a_token_counts_four_in_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsse.auth import verifier as module

    verifier = verifier_of(jwt_key=SECRET)
    long = [mint(claims(jti=str(number), more="x" * 3000)) for number in range(4)]
    room_bytes = 3 * (module._RIGHTS_BYTES + 4 * len(long[0]))
    for bound_bytes, kept in ((room_bytes, 3), (room_bytes - 1, 2)):
        monkeypatch.setattr(module, "REMEMBERED_BYTES_MAX", bound_bytes)
        verifier.forget()
        for raw in long:
            verifier.verify(raw, "publish")
        assert verifier.remembered == kept


def signed_token_of(size: int) -> bytes:
    """A valid token of so many bytes."""
    for more in range(size * 3 // 4 - 150, size):
        for kid in ("a", "aa", "aaa"):
            raw = mint(claims(more="x" * more), header={"kid": kid})
            if len(raw) == size:
                return raw
    raise AssertionError(size)


def test_every_byte_of_the_longest_token_counts() -> None:
    verifier = verifier_of(jwt_key=SECRET)
    raw = signed_token_of(TOKEN_BYTES_MAX)
    assert verifier.verify(raw, "publish")
    assert verifier.until_s(raw, "publish") > 0
    for last in (b"A", b"B"):
        if not raw.endswith(last):
            assert verifier.until_s(raw[:-1] + last, "publish") == 0
            with pytest.raises(Unauthorised):
                verifier.verify(raw[:-1] + last, "publish")


@pytest.mark.parametrize(
    ("side", "whose"),
    [("subscribe", "subscribers'"), ("publish", "publishers'"), ("console", "publishers'")],
)
def test_a_side_without_a_key_says_whose_tokens_it_can_not_judge(side: Any, whose: str) -> None:
    with pytest.raises(Unauthorised, match=f"no key for {whose} tokens"):
        Verifier({}, Expected()).verify(mint(), side)


# --- Operators


@pytest.mark.parametrize(
    ("ours", "role"),
    [
        ({}, ""),
        ({"fastsse": None}, ""),
        ({"fastsse": {}}, ""),
        ({"fastsse": {"console": ""}}, ""),
        ({"fastsse": {"console": "read"}}, "read"),
        ({"fastsse": {"console": "act"}}, "act"),
    ],
)
def test_the_role_of_an_operator_is_that_of_the_claim(ours: dict[str, Any], role: str) -> None:
    guard = guard_of(jwt_key=SECRET)
    (header,) = bearer(mint({**claims(), **ours})).values()
    assert guard.operator(header).console == role
    # On the other sides the claim is nothing.
    assert guard.publisher({b"authorization": header}, []).console == ""


@pytest.mark.parametrize(
    ("ours", "says"),
    [
        ("act", "not an object"),
        (["act"], "not an object"),
        ({"console": "root"}, "read or act"),
        ({"console": "ACT"}, "read or act"),
        ({"console": True}, "read or act"),
    ],
)
def test_a_role_that_there_is_not_is_refused(ours: Any, says: str) -> None:
    (header,) = bearer(mint(claims(fastsse=ours))).values()
    with pytest.raises(Unauthorised, match=says):
        guard_of(jwt_key=SECRET).operator(header)


def test_an_operator_needs_a_header_with_a_publishers_token() -> None:
    guard = guard_of(publisher_jwt_key=SECRET, subscriber_jwt_key=OTHER_SECRET)
    act = claims(fastsse={"console": "act"})
    (header,) = bearer(mint(act)).values()
    assert guard.operator(header).console == "act"
    for wrong in (None, *bearer(mint(act, key=OTHER_SECRET)).values()):
        with pytest.raises(Unauthorised):
            guard.operator(wrong)


# --- Times at their bounds


def test_a_token_begins_at_its_nbf_and_may_be_issued_a_little_ahead() -> None:
    guard = guard_at(Clock(), jwt_key=SECRET, jwt_leeway="10s")
    for times in ({"nbf": NOW_S + 10}, {"iat": NOW_S + 70}, {"nbf": 0}, {"iat": 0}):
        assert guard.publisher(bearer(mint(claims(**times))), [])
    for times in ({"nbf": NOW_S + 10.5}, {"iat": NOW_S + 70.5}):
        with pytest.raises(Unauthorised):
            guard.publisher(bearer(mint(claims(**times))), [])


def test_names_have_at_most_as_many_characters_as_is_said() -> None:
    from fastsse.auth.claims import _TEXT_MAX

    guard = guard_of(jwt_key=SECRET)
    assert guard.publisher(bearer(mint(claims(sub="s" * _TEXT_MAX))), [])
    with pytest.raises(Unauthorised, match="sub"):
        guard.publisher(bearer(mint(claims(sub="s" * (_TEXT_MAX + 1)))), [])


# --- Where the keys come from


@pytest.mark.parametrize("url", ["missing.json", "/missing/keys.json"])
def test_a_key_set_that_can_not_be_read_is_an_error_of_its_option(url: str) -> None:
    with pytest.raises(ConfigError, match="jwks_url"):
        guard_of(jwks_url=url)


class KeySetThatCloses:
    generation = 0
    closed = False

    def find(self, algorithm: str, kid: str | None) -> list[Any]:
        return []

    def look_again(self, token: bytes) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def test_what_was_shown_holds_until_keys_are_forgotten_or_fetched() -> None:
    key_set = KeySetThatCloses()
    verifier = Verifier({"publish": KeyRing([], key_set, ["RS256"])}, Expected())
    seen = {verifier.generation("publish")}
    verifier.forget()
    key_set.generation += 1
    seen.add(verifier.generation("publish"))
    verifier.forget()
    seen.add(verifier.generation("publish"))
    key_set.generation += 1
    seen.add(verifier.generation("publish"))
    assert len(seen) == 4


def test_closing_a_guard_cancels_the_fetches_of_its_key_set() -> None:
    key_set = KeySetThatCloses()
    verifier = Verifier({"publish": KeyRing([], key_set, ["RS256"])}, Expected())
    Guard(Config(jwt_key=SECRET), verifier, control()).close()
    assert key_set.closed


def test_a_key_set_file_is_checked_and_an_address_is_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"keys": 1}')
    with pytest.raises(ConfigError, match="jwks_url"):
        check_key_set_file(Config(jwks_url=str(path)))
    path.write_text('{"keys": []}')
    check_key_set_file(Config(jwks_url=str(path)))
    check_key_set_file(Config(jwks_url="https://127.0.0.1:1/keys"))
    check_key_set_file(Config(jwt_key=SECRET))


def test_a_key_file_that_was_spoiled_since_the_options_were_read_is_an_error(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key"
    path.write_text(SECRET)
    config = Config(jwt_key=str(path))
    path.write_text("short")
    with pytest.raises(ConfigError, match="jwt_key"):
        make_guard(config, control())


def test_a_ticket_is_opened_after_the_revocations_are_known() -> None:
    node = Node()
    rights = node.one.subscriber(bearer(mint({**claims(), "jti": "7"})), ())
    ticket = got(node.one.tickets.issue, rights)
    learned: list[Any] = []
    node.other.revocations.known = False
    node.other.revocations.learn = learned.append  # type: ignore[method-assign]
    with pytest.raises(Pending) as caught:
        node.other.subscriber({}, [("ticket", ticket)])
    outcomes: list[Any] = []
    caught.value.wait(outcomes.append)
    assert outcomes == [], "it waits for the revocations"
    learned[0](None)
    assert len(outcomes) == 1
