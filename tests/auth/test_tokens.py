"""Attacks on tokens: each is refused, and says why without saying anything secret."""

from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from fastsse.auth.rights import Rights
from fastsse.auth.token import TOKEN_BYTES_MAX
from fastsse.errors import Unauthorised
from tests.auth.conftest import verifier_of
from tests.auth.judging import SHARED, Verify, judged, refused
from tests.auth.minting import (
    OTHER_SECRET,
    SECRET,
    SECRET_64,
    b64,
    ec_key,
    ed_key,
    grants,
    jwk,
    mint,
    other_rsa_key,
    private_pem,
    public_pem,
    rsa_key,
    sign,
)

# --- Good ones


KEYS = [
    ("HS256", SECRET, SECRET),
    ("HS384", SECRET_64, SECRET_64),
    ("HS512", SECRET_64, SECRET_64),
    *((f"{kind}{bits}", rsa_key(), None) for kind in ("RS", "PS") for bits in (256, 384, 512)),
    ("ES256", ec_key(), None),
    ("ES384", ec_key(ec.SECP384R1), None),
    ("ES512", ec_key(ec.SECP521R1), None),
    ("EdDSA", ed_key(), None),
]


@pytest.mark.parametrize(("alg", "key", "text"), KEYS, ids=[key[0] for key in KEYS])
def test_every_algorithm_verifies_its_own_tokens_and_no_others(
    alg: str, key: Any, text: str | None
) -> None:
    verifier = verifier_of(jwt_key=text or public_pem(key), jwt_algorithms=[alg])
    raw = mint(key=key, alg=alg)
    assert verifier.verify(raw, "subscribe").subscribe == ("*",)
    head, body, signature = raw.split(b".")
    for wrong in (
        head + b"." + b64(orjson.dumps(grants(subscribe=["a"]))) + b"." + signature,
        head + b"." + body + b"." + b64(b"\0" * 64),
        head + b"." + body + b"." + b64(sign(head + b"." + body, key, alg)[:-1]),
    ):
        with pytest.raises(Unauthorised, match="signature"):
            verifier.verify(wrong, "subscribe")


def test_a_private_key_in_the_place_of_a_public_one_verifies_too() -> None:
    verifier = verifier_of(jwt_key=private_pem(rsa_key()))
    assert verifier.verify(mint(key=rsa_key(), alg="RS256"), "subscribe")


def test_a_verified_token_is_the_same_rights_each_time(verify: Verify) -> None:
    raw = mint()
    assert verify(raw) is verify(raw)


# --- Algorithms (3.5: none, confusion)


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", " none", "none\0"])
def test_alg_none_is_refused_in_every_spelling(alg: str) -> None:
    head, body = b64(orjson.dumps({"alg": alg})), b64(orjson.dumps(grants(subscribe=["*"])))
    refused(head + b"." + body + b"." + b64(b"x"), "alg")
    refused(head + b"." + body + b".", "three parts")
    refused(head + b"." + body, "three parts")


def test_a_token_signed_with_the_public_key_as_hmac_secret_is_refused() -> None:
    pem = public_pem(rsa_key())
    for secret in (pem, pem.strip(), pem.replace("\n", "\r\n")):
        forged = mint(key=secret, alg="HS256")
        refused(forged, "alg", jwt_key=pem)
        refused(forged, "alg", jwt_key=pem, jwt_algorithms=["RS256", "PS256", "HS256"])


def test_a_token_signed_with_the_der_of_the_public_key_is_refused() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    refused(mint(key=der, alg="HS256"), "alg", jwt_key=public_pem(rsa_key()))


def test_an_rsa_token_is_refused_where_a_secret_is_the_key() -> None:
    refused(mint(key=rsa_key(), alg="RS256"), "alg")


@pytest.mark.parametrize("alg", ["HS384", "HS512", "RS256", "ES256", "hs256", "HS257", "ES256K"])
def test_an_algorithm_that_is_not_pinned_is_refused(alg: str) -> None:
    refused(mint(header={"alg": alg}), "alg")


def test_of_an_rsa_key_only_the_pinned_padding_is_taken() -> None:
    raw = mint(key=rsa_key(), alg="PS256")
    refused(raw, "alg", jwt_key=public_pem(rsa_key()))
    pss = verifier_of(jwt_key=public_pem(rsa_key()), jwt_algorithms=["PS256"])
    assert pss.verify(raw, "subscribe")
    # The signature of the one padding under the name of the other.
    renamed = mint(key=rsa_key(), alg="RS256", header={"alg": "PS256"})
    with pytest.raises(Unauthorised, match="signature"):
        pss.verify(renamed, "subscribe")


def test_a_token_of_another_curve_is_refused() -> None:
    raw = mint(key=ec_key(ec.SECP384R1), alg="ES384")
    refused(raw, "alg", jwt_key=public_pem(ec_key()))


@pytest.mark.parametrize("alg", [None, 1, True, ["HS256"], {"HS256": 1}])
def test_an_alg_that_is_no_text_is_refused(alg: Any) -> None:
    refused(mint(header={"alg": alg}), "alg")


def test_ecdsa_signatures_of_zeros_and_in_der_are_refused() -> None:
    head, body, _ = mint(key=ec_key(), alg="ES256").split(b".")
    der = ec_key().sign(head + b"." + body, ec.ECDSA(get_default_algorithms()["ES256"].hash_alg()))
    for signature in (b"\0" * 64, b"\xff" * 64, der, b"\0" * 63, b"\0" * 65, b"\0"):
        raw = head + b"." + body + b"." + b64(signature)
        refused(raw, "signature", jwt_key=public_pem(ec_key()))


def test_another_key_of_the_same_kind_is_refused() -> None:
    refused(mint(key=OTHER_SECRET), "signature")
    refused(mint(key=other_rsa_key(), alg="RS256"), "signature", jwt_key=public_pem(rsa_key()))


# --- What a header may not ask for (3.5: crit, b64, JWE, jwk, jku, x5u, kid, typ)


@pytest.mark.parametrize(
    "member",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"jwk": jwk(rsa_key(), "mine")},
        {"jku": "https://attacker.example/keys"},
        {"x5u": "https://attacker.example/cert"},
    ],
    ids=lambda member: "+".join(member),
)
def test_a_header_that_asks_for_more_than_a_signature_is_refused(member: dict[str, Any]) -> None:
    refused(mint(header=member), next(iter(member)))


def test_an_embedded_key_is_not_used() -> None:
    own = rsa_key()
    raw = mint(key=own, alg="RS256", header={"jwk": jwk(own, "x")})
    refused(raw, "jwk", jwt_key=public_pem(other_rsa_key()))


def test_encrypted_tokens_are_refused_unread() -> None:
    refused(b".".join([b64(b'{"alg":"dir","enc":"A256GCM","zip":"DEF"}')] + [b"QUJD"] * 4), "JWE")
    refused(b"a.b.c.d.e", "JWE")


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "x\r\nX-Injected: 1",
        "http://169.254.169.254/",
        "\0",
    ],
)
def test_a_kid_is_only_a_name(kid: str, verify: Verify) -> None:
    """It chooses among configured keys; a single key is tried whatever the name."""
    assert verify(mint(header={"kid": kid}))
    refused(mint(header={"kid": kid}, key=""), "signature")
    refused(mint(header={"kid": kid}, key=b"\0"), "signature")


@pytest.mark.parametrize("kid", [1, None, ["a"], {}, "a" * 257])
def test_a_kid_that_is_no_short_text_is_refused(kid: Any, verify: Verify) -> None:
    if kid is None:
        assert verify(mint(header={"kid": None}))
    else:
        refused(mint(header={"kid": kid}), "kid")


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+JWT", None])
def test_usual_types_are_taken(typ: str | None, verify: Verify) -> None:
    assert verify(mint(header={"typ": typ}))


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "secevent+jwt", "JOSE", "", 5, ["JWT"]])
def test_a_token_of_another_type_is_refused(typ: Any) -> None:
    refused(mint(header={"typ": typ}), "typ")


# --- The form


def test_a_long_token_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsse.auth import token

    def never(part: bytes) -> bytes:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(token, "_decode", never)
    for raw in (b"a" * (TOKEN_BYTES_MAX + 1), b"a." * 600_000, mint({"x": "y" * TOKEN_BYTES_MAX})):
        refused(raw, "bytes")


@pytest.mark.parametrize("length", [0, 1, 2, 4, 6, 100])
def test_another_number_of_parts_is_refused(length: int) -> None:
    refused(b".".join([b"QUJD"] * length))


def test_only_the_canonical_spelling_of_base64url_is_taken() -> None:
    head, body, signature = mint().split(b".")
    # 32 bytes end with a character of which two bits are used for nothing.
    last = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = last[last.index(signature[-1:]) ^ 1 :][:1]
    for raw in (
        head + b"." + body + b"." + signature[:-1] + twin,
        head + b"." + body + b"." + signature + b"=",
        head + b"." + body + b"." + signature + b"A",
        head + b"." + body + b"." + signature + b"\n",
        head + b"=." + body + b"." + signature,
        b" " + head + b"." + body + b"." + signature,
        head + b"." + body + b"+." + signature,
        head[:4] + b"\n" + head[4:] + b"." + body + b"." + signature,
        b"\xff." + body + b"." + signature,
    ):
        refused(raw)


@pytest.mark.parametrize("odd", [b"\n\n\n\n", b"!!!!", b"\xff\xff\xff\xff", b"===="])
@pytest.mark.parametrize("part", [0, 1])
def test_another_spelling_is_refused_when_it_is_signed_too(odd: bytes, part: int) -> None:
    """A reader that skips what is no base64url would find the same header and claims."""
    parts = mint().split(b".")[:2]
    parts[part] = parts[part][:4] + odd + parts[part][4:]
    signed = b".".join(parts)
    refused(signed + b"." + b64(sign(signed, SECRET, "HS256")), "base64url")


def test_the_header_of_an_issuer_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsse.auth import token

    monkeypatch.setattr(token, "_headers", {})
    first = token.open_token(mint(header={"kid": "of-an-issuer"}))
    monkeypatch.setattr(token, "_read_header", None)
    assert token.open_token(mint({"x": 1}, header={"kid": "of-an-issuer"})).kid == first.kid


@pytest.mark.parametrize(("head_bytes", "known"), [(512, True), (514, False)])
def test_headers_of_up_to_512_bytes_are_remembered(
    monkeypatch: pytest.MonkeyPatch, head_bytes: int, known: bool
) -> None:
    from fastsse.auth import token

    remembered: dict[bytes, object] = {}
    monkeypatch.setattr(token, "_headers", remembered)
    name = "k" * (head_bytes * 3 // 4 - len(b'{"alg":"HS256","cty":""}'))
    raw = mint(header={"cty": name})
    assert raw.index(b".") == head_bytes
    token.open_token(raw)
    assert list(remembered) == ([raw[:head_bytes]] if known else [])


def test_remembered_headers_make_room_when_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastsse.auth import token

    remembered: dict[bytes, object] = {}
    monkeypatch.setattr(token, "_headers", remembered)
    monkeypatch.setattr(token, "_HEADERS_MAX", 3)
    counts = []
    for number in range(5):
        token.open_token(mint(header={"kid": f"{number}"}))
        counts.append(len(remembered))
    assert counts == [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"HS256"',
        b'{"alg":"HS256"',
        b'{"alg":"HS256"}x',
        b"\xff\xfe",
        b'\xef\xbb\xbf{"alg":"HS256"}',
        b'{"alg":"HS256","alg":"none"}',
        b'{"alg":"none","alg":"HS256"}',
        b'{"alg":"HS256","x":{"y":1,"y":2}}',
        b'{"alg":"HS256","x":NaN}',
        b'{"alg":"HS256","x":1e999}',
        b'{"alg":"HS256","x":' + b"9" * 5000 + b"}",
        b'{"alg":"HS256","x":' + b"[" * 9_000 + b"}",
        b'{"alg":"HS256","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_a_header_that_readers_could_differ_on_is_refused(header: bytes) -> None:
    refused(mint(header=header))


@pytest.mark.parametrize(
    "claims",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b'{"mercure":{}}x',
        b'{"sub":"a","sub":"b"}',
        b'{"mercure":{"subscribe":["a"],"subscribe":["*"]}}',
        b'{"exp":99999999999,"exp":1}',
        b'{"exp":Infinity}',
        b'{"exp":1e999}',
        b'{"exp":' + b"9" * 400 + b"}",
        b"\xff",
        b"[" * 10_000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_claims_that_readers_could_differ_on_are_refused(claims: bytes) -> None:
    refused(mint(claims))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_a_token(raw: bytes) -> None:
    with pytest.raises(Unauthorised):
        SHARED.verify(raw, "subscribe")


@given(st.binary(max_size=100), st.binary(max_size=200))
def test_any_signed_bytes_are_rights_or_refused(header: bytes, body: bytes) -> None:
    signed = b64(header) + b"." + b64(body)
    for raw in (signed + b"." + b64(sign(signed, SECRET, "HS256")), mint(body)):
        assert isinstance(judged(raw), Rights | str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["mercure", "https://mercure.rocks/", "exp", "nbf", "iat", "aud", "iss", "sub", "jti"]
        ),
        JSON
        | st.fixed_dictionaries({}, optional={"publish": JSON, "subscribe": JSON, "payload": JSON}),
    )
)
def test_any_signed_claims_are_rights_or_refused(claims: dict[str, Any]) -> None:
    import json

    rights = judged(mint(json.dumps(claims).encode()))
    if isinstance(rights, Rights):
        assert all(type(text) is str for text in (*rights.subscribe, *rights.publish))
        assert all(0 <= claim < 1 << 64 for claim in rights.claims)
        assert orjson.dumps(rights.payload)


# --- What is remembered


def test_memory_for_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsse.auth import verifier as module

    monkeypatch.setattr(module, "REMEMBERED_MAX", 10)
    verifier = verifier_of(jwt_key=SECRET)
    for number in range(50):
        verifier.verify(mint({**grants(), "jti": str(number)}), "subscribe")
    assert verifier.remembered == 10
    monkeypatch.setattr(module, "REMEMBERED_BYTES_MAX", 5000)
    verifier.verify(mint({**grants(), "jti": "x"}), "subscribe")
    assert verifier.remembered < 5


def test_tokens_do_not_lie_in_memory() -> None:
    verifier = verifier_of(jwt_key=SECRET)
    raw = mint()
    verifier.verify(raw, "subscribe")
    (name,) = [name for memory in verifier._memories.values() for name in memory._known]
    assert len(name) == 16
    assert raw not in name


def test_a_token_of_one_side_is_none_of_the_other() -> None:
    verifier = verifier_of(publisher_jwt_key=SECRET, subscriber_jwt_key=OTHER_SECRET)
    raw = mint()
    assert verifier.verify(raw, "publish")
    with pytest.raises(Unauthorised, match="signature"):
        verifier.verify(raw, "subscribe")
    assert verifier.verify(mint(key=OTHER_SECRET), "subscribe")
