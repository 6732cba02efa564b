"""Where a token is found, by itself: what the guard refuses later is refused here already."""

import pytest

from fastsse.auth.credentials import credentials, page_origin
from fastsse.errors import Unauthorised

COOKIE = b"mercureAuthorization"
TOKEN = b"a" * 41


def header(value: bytes, *, mercure: bool = False) -> bytes | None:
    found = credentials({b"authorization": value}, (), COOKIE, mercure=mercure)
    return found and found.text


def cookie(value: bytes) -> bytes | None:
    found = credentials({b"cookie": value}, (), COOKIE)
    return found and found.text


@pytest.mark.parametrize("mercure", [False, True])
@pytest.mark.parametrize(
    "blanks", [b"Bearer  %b", b" Bearer %b", b"Bearer %b ", b"\tBearer   %b \t"]
)
def test_blanks_around_a_token_are_none_of_it(blanks: bytes, mercure: bool) -> None:
    assert header(blanks % TOKEN, mercure=mercure) == TOKEN


def test_mercures_least_length_holds_with_blanks_too() -> None:
    for blanks in (b"Bearer %b", b" Bearer %b", b"Bearer %b "):
        assert header(blanks % TOKEN, mercure=True) == TOKEN
        with pytest.raises(Unauthorised, match="Bearer and a token"):
            header(blanks % TOKEN[1:], mercure=True)


@pytest.mark.parametrize(
    "value", [b"", b" ", b"Bearer", b"Bearer ", b"bearer \t", TOKEN, b"x,Bearer y"]
)
def test_a_header_without_a_token_is_refused(value: bytes) -> None:
    with pytest.raises(Unauthorised, match="Bearer and a token"):
        header(value)


@pytest.mark.parametrize(
    ("cookies", "token"),
    [
        (b'a=b; %b="x"', b"x"),
        (b'%b="', b'"'),
        (b'%b="x', b'"x'),
        (b'%b=x"', b'x"'),
        (b'%b="""', b'"'),
        (b"\t%b \t= \tx \t", b"x"),
        (b"%b=x=y", b"x=y"),
    ],
)
def test_a_cookie_is_read_with_or_without_quotes(cookies: bytes, token: bytes) -> None:
    assert cookie(cookies % COOKIE) == token


@pytest.mark.parametrize("cookies", [b"%b=", b'%b=""', b"%b= ; a=b"])
def test_a_cookie_without_a_value_is_refused(cookies: bytes) -> None:
    with pytest.raises(Unauthorised, match="is not a token"):
        cookie(cookies % COOKIE)


def test_a_cookie_that_stands_twice_is_refused_even_with_one_value() -> None:
    with pytest.raises(Unauthorised, match="once"):
        cookie(b"%b=x; %b=x" % (COOKIE, COOKIE))
    assert cookie(COOKIE) is None


@pytest.mark.parametrize(
    ("referer", "origin"),
    [
        (b"https://a.example/path?q#f", b"https://a.example"),
        (b" HTTPS://A.Example:8443/ ", b"https://a.example:8443"),
        (b"https://user@a.example/", None),
        (b"https://user:secret@a.example/", None),
        (b"https://a.example:99999/", None),
        (b"https://a.example:x/", None),
        (b"https://[::1/", None),
        (b"//a.example/", None),
        (b"https:///path", None),
        (b"https:path", None),
        (b"/path", None),
        (b"", None),
    ],
)
def test_the_origin_of_a_page_is_read_from_its_referer(
    referer: bytes, origin: bytes | None
) -> None:
    assert page_origin({b"referer": referer}) == origin
    assert page_origin({b"referer": b"https://other.example/", b"origin": b" null "}) == b"null"
