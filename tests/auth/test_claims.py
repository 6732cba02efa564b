"""What a token says of itself: times, whom it is for, grants."""

import time
from typing import Any

import pytest

from fastsse.errors import Unauthorised
from tests.auth.conftest import verifier_of
from tests.auth.judging import SHARED, Verify, refused
from tests.auth.minting import (
    SECRET,
    grants,
    mint,
)

# --- Times


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["1", "9999999999", True, [9999999999], {}, None, -1, -0.5, 1e308, 2**63]
)
def test_a_time_that_is_none_is_refused(name: str, value: Any) -> None:
    refused(mint({**grants(), name: value}), name)


@pytest.mark.parametrize("exp", [0, 0.0, 1, 0.5])
def test_a_token_of_1970_has_expired(exp: float) -> None:
    raw = mint({"mercure": {}, "exp": exp})
    with pytest.raises(Unauthorised, match="exp"):
        SHARED.verify(raw, "subscribe")


def test_exp_is_exclusive_and_leeway_moves_it() -> None:
    now = time.time()
    raw = mint({"mercure": {}, "exp": now - 5})
    refused(raw, "expired")
    kind = verifier_of(jwt_key=SECRET, jwt_leeway="10s")
    rights = kind.verify(raw, "subscribe")
    assert rights.expires_s == pytest.approx(now + 5)
    assert rights.claims[0] == pytest.approx((now + 5) * 1000, abs=1)


def test_a_token_without_exp_never_ends(verify: Verify) -> None:
    rights = verify(mint({"mercure": {}}))
    assert rights.expires_s is None
    assert rights.claims[0] == 0


def test_a_token_that_is_not_valid_yet_is_refused() -> None:
    refused(mint({**grants(), "nbf": time.time() + 30}), "nbf")
    assert verifier_of(jwt_key=SECRET, jwt_leeway="1m").verify(
        mint({**grants(), "nbf": time.time() + 30}), "subscribe"
    )


def test_a_token_from_the_future_is_refused_but_for_what_clocks_differ(verify: Verify) -> None:
    refused(mint({**grants(), "iat": time.time() + 3600}), "iat")
    rights = verify(mint({**grants(), "iat": time.time() + 30}))
    assert rights.issued_s is not None
    assert rights.issued_s <= time.time(), "else it would outlive a revocation by time"


def test_a_remembered_token_is_refused_when_it_ends() -> None:
    now = [time.time()]
    verifier = verifier_of(jwt_key=SECRET)
    verifier._now_s = lambda: now[0]
    raw = mint({"mercure": {}, "exp": now[0] + 10})
    assert verifier.verify(raw, "subscribe") is verifier.verify(raw, "subscribe")
    now[0] += 10
    with pytest.raises(Unauthorised, match="expired"):
        verifier.verify(raw, "subscribe")
    assert verifier.remembered == 0


# --- Audience and issuer


@pytest.mark.parametrize(
    ("aud", "taken"),
    [
        ("sse", True),
        (["other", "sse"], True),
        ("other", False),
        ([], False),
        (None, False),
        (["ss", "e"], False),
        ("sse ", False),
    ],
)
def test_the_audience_must_be_ours(aud: Any, taken: bool) -> None:
    raw = mint({**grants(), "aud": aud})
    if taken:
        assert verifier_of(jwt_key=SECRET, jwt_audience=["sse", "b"]).verify(raw, "subscribe")
    else:
        refused(raw, "aud", jwt_key=SECRET, jwt_audience=["sse", "b"])


@pytest.mark.parametrize("aud", [1, {"sse": 1}, ["sse", 1], True])
def test_an_audience_that_is_no_text_is_refused(aud: Any) -> None:
    refused(mint({**grants(), "aud": aud}), "aud")
    refused(mint({**grants(), "aud": aud}), "aud", jwt_key=SECRET, jwt_audience="sse")


@pytest.mark.parametrize("iss", [None, "https://b", 1, ["https://a"], "https://a/"])
def test_another_issuer_is_refused(iss: Any) -> None:
    claims = grants() if iss is None else {**grants(), "iss": iss}
    refused(mint(claims), "iss", jwt_key=SECRET, jwt_issuer="https://a")


def test_the_issuer_is_taken() -> None:
    raw = mint({**grants(), "iss": "https://a"})
    assert verifier_of(jwt_key=SECRET, jwt_issuer="https://a").verify(raw, "subscribe")


# --- Grants


@pytest.mark.parametrize(
    "claim",
    [
        [],
        "*",
        1,
        {"subscribe": "*"},
        {"subscribe": [1]},
        {"subscribe": {"*": 1}},
        {"subscribe": [["*"]]},
        {"subscribe": ["a"] * 1001},
        {"publish": ["a"] * 1001},
        {"publish": "*"},
    ],
)
def test_grants_of_another_form_are_refused(claim: Any) -> None:
    refused(mint({**grants(), "mercure": claim}), "mercure")


def test_a_thousand_grants_are_taken_and_simplified(verify: Verify) -> None:
    assert len(verify(mint(grants(subscribe=[str(n) for n in range(1000)]))).subscribe) == 1000
    assert verify(mint(grants(subscribe=["b", "a", "b"]))).subscribe == ("a", "b")
    assert verify(mint(grants(subscribe=["b", "*", "a"]))).subscribe == ("*",)


def test_the_namespaced_claim_wins(verify: Verify) -> None:
    claims = {**grants(subscribe=["*"]), "https://mercure.rocks/": {"subscribe": ["a"]}}
    assert verify(mint(claims)).subscribe == ("a",)
    claims["https://mercure.rocks/"] = []
    refused(mint(claims))


def test_a_subscriber_needs_no_grants_and_a_publisher_a_claim(verify: Verify) -> None:
    assert verify(mint({})).subscribe == ()
    assert SHARED.verify(mint(grants(publish=[])), "publish").publish == ()
    for claims in ({}, grants(), grants(publish=None), {"mercure": None}):
        with pytest.raises(Unauthorised, match=r"mercure\.publish"):
            SHARED.verify(mint(claims), "publish")


def test_payload_subject_and_id_are_read(verify: Verify) -> None:
    rights = verify(mint({**grants(payload={"a": [1]}), "sub": "é", "jti": "7", "iat": 5}))
    assert (rights.payload, rights.subject, rights.token_id) == ({"a": [1]}, "é", "7")
    assert rights.claims[3] == 5
    assert rights.claims[1] != rights.claims[2]
    assert 0 not in rights.claims[1:]


@pytest.mark.parametrize("name", ["sub", "jti"])
@pytest.mark.parametrize("value", [1, True, ["a"], {}, "a" * 1025])
def test_a_subject_or_id_that_is_no_text_is_refused(name: str, value: Any) -> None:
    refused(mint({**grants(), name: value}), name)


@pytest.mark.parametrize(
    "claims",
    [
        b'{"sub":"\\ud800"}',
        b'{"mercure":{"subscribe":["\\udfff"]}}',
        b'{"mercure":{"payload":"\\ud800"}}',
        b'{"mercure":{"payload":99999999999999999999}}',
        b'{"mercure":{"payload":' + b"[" * 400 + b"]" * 400 + b"}}",
    ],
)
def test_text_and_payloads_that_could_not_be_encoded_again_are_refused(claims: bytes) -> None:
    refused(mint(claims))


def test_rights_do_not_show_what_they_hold(verify: Verify) -> None:
    rights = verify(mint({**grants(subscribe=["top/secret"], payload="hidden"), "sub": "who"}))
    for secret in ("secret", "hidden", "who"):
        assert secret not in repr(rights)
