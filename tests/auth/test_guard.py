"""What requests show, where, and who wins."""

import pytest

from fastsse.auth.credentials import credentials, page_origin
from fastsse.auth.guard import Guard, make_guard
from fastsse.auth.rights import ANONYMOUS, Rights, claim_hash
from fastsse.config import Config
from fastsse.errors import Forbidden, Unauthorised
from tests.auth.conftest import control, guard_of
from tests.auth.minting import OTHER_SECRET, SECRET, mint
from tests.auth.onenode import bearer

GOOD = mint()
BAD = mint(key=OTHER_SECRET)
COOKIE = b"mercureAuthorization"


def cookie(raw: bytes, **more: bytes) -> dict[bytes, bytes]:
    return {b"cookie": COOKIE + b"=" + raw, **{k.encode(): v for k, v in more.items()}}


def query(raw: bytes) -> list[tuple[str, str]]:
    return [("topic", "a"), ("authorization", raw.decode())]


# --- Where a token is (A1, A2)


@pytest.mark.parametrize("mercure", [False, True])
@pytest.mark.parametrize(
    ("headers", "pairs", "source"),
    [
        (bearer(GOOD), [], "header"),
        ({}, query(GOOD), "query"),
        (cookie(GOOD), [], "cookie"),
        ({**bearer(GOOD), **cookie(BAD)}, query(BAD), "header"),
        (cookie(BAD), query(GOOD), "query"),
        ({b"cookie": b"a=b; " + COOKIE + b'="' + GOOD + b'"; c=d'}, [], "cookie"),
    ],
)
def test_header_query_and_cookie_are_taken_in_this_order(
    headers: dict[bytes, bytes], pairs: list[tuple[str, str]], source: str, mercure: bool
) -> None:
    found = credentials(headers, pairs, COOKIE, mercure=mercure)
    assert found == (GOOD, source)
    assert guard_of(jwt_key=SECRET).subscriber(headers, pairs, mercure=mercure)


@pytest.mark.parametrize("mercure", [False, True])
@pytest.mark.parametrize(
    ("headers", "pairs"),
    [
        ({**bearer(BAD), **cookie(GOOD)}, query(GOOD)),
        ({b"authorization": b"", **cookie(GOOD)}, query(GOOD)),
        ({b"authorization": b"Basic dXNlcjpwYXNz, Bearer " + BAD, **cookie(GOOD)}, []),
        ({b"authorization": b"Basic", **cookie(GOOD)}, []),
        ({b"authorization": b"B(sic dXNlcjpwYXNz", **cookie(GOOD)}, []),
        ({b"authorization": b"Bearer", **cookie(GOOD)}, []),
        ({b"authorization": GOOD, **cookie(GOOD)}, []),
        (cookie(GOOD), query(BAD)),
        (cookie(GOOD), [("authorization", "")]),
        ({}, query(GOOD) + query(GOOD)),
        ({}, [*query(GOOD), ("ticket", "a" * 32)]),
        ({b"cookie": COOKIE + b"=" + GOOD + b"; " + COOKIE + b"=" + GOOD}, []),
        (cookie(b""), []),
        (cookie(BAD), []),
    ],
)
def test_a_higher_one_that_is_present_decides_even_when_bad(
    headers: dict[bytes, bytes], pairs: list[tuple[str, str]], mercure: bool
) -> None:
    guard = guard_of(jwt_key=SECRET, anonymous=True)
    with pytest.raises(Unauthorised):
        guard.subscriber(headers, pairs, mercure=mercure)
    with pytest.raises(Unauthorised):
        guard.publisher(headers, pairs, mercure=mercure)


@pytest.mark.parametrize("mercure", [False, True])
@pytest.mark.parametrize(
    "header",
    [b"Basic dXNlcjpwYXNz", b"Digest username=a, realm=b", b"basic\tx y", b"Negotiate YII="],
)
def test_a_header_of_another_scheme_is_passed_over(header: bytes, mercure: bool) -> None:
    header = header.replace(b"\t", b" ")
    other = {b"authorization": header}
    guard = guard_of(jwt_key=SECRET)
    found = credentials({**other, **cookie(GOOD)}, [], COOKIE, mercure=mercure)
    assert found == (GOOD, "cookie")
    assert credentials(other, query(GOOD), COOKIE, mercure=mercure) == (GOOD, "query")
    assert guard.subscriber({**other, **cookie(GOOD)}, [], mercure=mercure)
    with pytest.raises(Unauthorised, match="requires a token"):
        guard.subscriber(other, [], mercure=mercure)
    with pytest.raises(Unauthorised):
        guard.subscriber({**other, **cookie(BAD)}, [], mercure=mercure)


def test_on_mercures_path_short_tokens_and_another_spelling_of_bearer_are_refused() -> None:
    for headers, pairs in (
        ({b"authorization": b"bearer " + GOOD}, []),
        ({b"authorization": b"BEARER " + GOOD}, []),
        ({b"authorization": b"Bearer " + b"a" * 40}, []),
        ({}, [("authorization", "a" * 40)]),
    ):
        with pytest.raises(Unauthorised, match=r"Bearer and a token|not a token"):
            credentials(headers, pairs, COOKIE, mercure=True)
        assert credentials(headers, pairs, COOKIE)
    assert credentials({b"authorization": b"Bearer " + b"a" * 41}, [], COOKIE, mercure=True)
    assert credentials({}, [("authorization", "a" * 41)], COOKIE, mercure=True)


@pytest.mark.parametrize(
    "cookies",
    [b"", b";;;", b"=", COOKIE, COOKIE.lower() + b"=x", b"x" + COOKIE + b"=x", b"\xff\0=" * 1000],
)
def test_other_cookies_are_no_token(cookies: bytes) -> None:
    assert credentials({b"cookie": cookies}, [], COOKIE) is None


def test_the_cookie_has_the_name_that_is_configured() -> None:
    guard = guard_of(jwt_key=SECRET, jwt_cookie="__Host-token")
    assert guard.subscriber({b"cookie": b"__Host-token=" + GOOD}, ())
    with pytest.raises(Unauthorised, match="requires a token"):
        guard.subscriber(cookie(GOOD), ())


def test_without_a_token_only_the_anonymous_option_lets_readers_in() -> None:
    with pytest.raises(Unauthorised, match="requires a token"):
        guard_of(jwt_key=SECRET).subscriber({}, ())
    guard = guard_of(jwt_key=SECRET, anonymous=True)
    assert guard.subscriber({}, ()) is ANONYMOUS
    assert not ANONYMOUS.covers_subscribe(["a"])
    with pytest.raises(Unauthorised, match="requires a token"):
        guard.publisher({}, ())


def test_with_a_key_for_publishers_alone_a_readers_token_is_refused() -> None:
    guard = guard_of(publisher_jwt_key=SECRET, anonymous=True)
    assert guard.subscriber({}, ()) is ANONYMOUS
    with pytest.raises(Unauthorised):
        guard.subscriber(bearer(GOOD), ())


# --- Cookies and pages (A3, 3.7)


def cookie_guard() -> Guard:
    guard = make_guard(Config(jwt_key=SECRET), control(), {b"https://app.example"})
    assert guard is not None
    return guard


@pytest.mark.parametrize(
    "page",
    [
        {"origin": b"https://app.example"},
        {"referer": b"https://app.example/page?x=y"},
        {"origin": b"https://app.example", "referer": b"https://evil.example/"},
    ],
)
def test_an_allowed_page_publishes_by_cookie(page: dict[str, bytes]) -> None:
    assert cookie_guard().publisher(cookie(GOOD, **page), ())


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"origin": b"https://evil.example"},
        {"origin": b"null"},
        {"origin": b""},
        {"origin": b"https://evil.example", "referer": b"https://app.example/"},
        {"origin": b"https://app.example.evil.example"},
        {"referer": b"https://app.example.evil.example/"},
        {"referer": b"https://app.example@evil.example/"},
        {"referer": b"https://user@app.example/"},
        {"referer": b"http://app.example/"},
        {"referer": b"https://app.example:444/"},
        {"referer": b"/relative"},
        {"referer": b"https://[bad/"},
        {"referer": b"//app.example/"},
        {"referer": b""},
    ],
)
def test_a_page_that_is_not_allowed_can_not_publish_by_cookie(page: dict[str, bytes]) -> None:
    guard = cookie_guard()
    # A page that says nothing is not taken for one of another origin.
    says = "Pages of this origin|requires the header" if page else "requires the header"
    with pytest.raises(Unauthorised, match=says):
        guard.publisher(cookie(GOOD, **page), ())
    assert guard.subscriber(cookie(GOOD, **page), ()), "reading needs no page"


def test_a_header_or_query_needs_no_page() -> None:
    assert cookie_guard().publisher(bearer(GOOD, origin=b"https://evil.example"), ())
    assert cookie_guard().publisher({b"origin": b"https://evil.example"}, query(GOOD))


def test_a_referer_of_any_bytes_is_an_origin_or_none() -> None:
    for referer in (b"\xff\xfe://x/", b"https://\xc3\xa9/", b"https://a:99999/", b"a" * 9000):
        assert page_origin({b"referer": referer}) is None or isinstance(
            page_origin({b"referer": referer}), bytes
        )


# --- Rights


def test_every_topic_of_a_publish_must_be_granted() -> None:
    rights = Rights(publish=["a", "https://x/{id}", "b/*"])
    for topics in (["a"], ["https://x/1"], ["a", "https://x/1"], ["b/*"], ["https://x/{id}"]):
        rights.check_publish(topics)
    for topics in (["b"], ["a", "b"], ["https://x/1/2"], ["b/c"], ["A"], ["a", "*"]):
        assert not rights.covers_publish(topics)
        with pytest.raises(Forbidden, match="publish"):
            rights.check_publish(topics)
    assert Rights(publish=["*"]).covers_publish(["anything", "*"])
    assert not Rights().covers_publish(["a"])


def test_one_topic_of_a_private_event_must_be_granted() -> None:
    rights = Rights(subscribe=["user/{id}"])
    assert rights.covers_subscribe(["news", "user/7"])
    assert not rights.covers_subscribe(["news"])
    assert not Rights().covers_subscribe(["news"])


def test_hashes_of_claims_are_64_bits_and_never_the_none_of_no_claim() -> None:
    hashes = {claim_hash(f"user-{number}") for number in range(10_000)}
    assert len(hashes) == 10_000
    assert all(0 < one < 1 << 64 for one in hashes)
    assert claim_hash(None) == 0
    assert claim_hash("a") == claim_hash("a")


def test_hashes_differ_from_process_to_process() -> None:
    """So that no client can look for a subject whose hash is another's."""
    import subprocess
    import sys

    program = "from fastsse.auth.rights import claim_hash; print(claim_hash('a'))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) != claim_hash("a")
