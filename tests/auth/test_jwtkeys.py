"""Keys: what can't verify tokens safely is refused when the server starts."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, x448
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidKeyError

from fastsse.auth.guard import make_guard
from fastsse.auth.roca import has_roca_weakness
from fastsse.config import Config, ConfigError, load
from fastsse.errors import Unauthorised
from fastsse.jwtkeys import BadKey, Key, check_key, encode_token, key_of_jwk
from tests.auth.conftest import control, verifier_of
from tests.auth.minting import (
    OTHER_SECRET,
    SECRET,
    SECRET_64,
    ec_key,
    ed_key,
    jwk,
    mint,
    private_pem,
    public_pem,
    roca_key,
    rsa_key,
)


def problem(**options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Config(**options)
    text = str(caught.value)
    assert text.isprintable()
    assert SECRET not in text
    return text


# --- The key itself


@pytest.mark.parametrize(
    ("key", "algorithms", "says"),
    [
        ("short", [], "at least 32 bytes for HS256"),
        ("x" * 31, ["HS256"], "at least 32 bytes for HS256"),
        (SECRET, ["HS384"], "at least 48 bytes for HS384"),
        (SECRET, ["HS256", "HS512"], "at least 64 bytes for HS512"),
        (SECRET, ["RS256"], "a secret is for HS256"),
        ("-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----", [], "can be read"),
        ("-----BEGIN PUBLIC KEY-----", [], "can be read"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC" + "A" * 100, [], "not an SSH key"),
        ('{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}', [], "a JWK"),
        ("/no/such/file", [], "no such file"),
        ("/", [], "not a folder"),
        ("./\x01", [], "no such file"),
    ],
)
def test_a_key_that_can_not_be_used_is_refused_at_start(
    key: str, algorithms: list[str], says: str
) -> None:
    text = problem(jwt_key=key, jwt_algorithms=algorithms)
    assert says in text
    assert text.startswith("jwt_key = ***")


def test_hmac_is_refused_for_a_pem_key() -> None:
    for key in (rsa_key(), ec_key(), ed_key()):
        for pem in (public_pem(key), private_pem(key)):
            assert "PEM key is for" in problem(jwt_key=pem, jwt_algorithms=["HS256"])


def test_a_pem_key_behind_other_text_is_no_secret() -> None:
    assert "not an SSH key" in problem(jwt_key="x\n" + public_pem(rsa_key()))


def test_an_rsa_key_with_the_roca_weakness_is_refused_and_others_are_not() -> None:
    for pem in (public_pem(roca_key()), private_pem(roca_key())):
        assert "ROCA" in problem(jwt_key=pem)
    assert not has_roca_weakness(rsa_key().public_key().public_numbers().n)
    # Nor one that is a power of 65537 modulo each of the primes, but by exponents of its own.
    residues = {prime: pow(65537, index, prime) for index, prime in enumerate((3, 5, 7, 11, 13))}
    number = next(n for n in range(15015) if all(n % p == r for p, r in residues.items()))
    assert not has_roca_weakness(number)


def test_weak_and_strange_keys_are_refused() -> None:
    assert "2048" in problem(jwt_key=public_pem(rsa_key(1024)))
    assert "P-256" in problem(jwt_key=public_pem(ec_key(ec.SECP256K1)))
    assert "Edwards" in problem(jwt_key=public_pem(dsa.generate_private_key(2048)))
    assert "Edwards" in problem(jwt_key=public_pem(x448.X448PrivateKey.generate()))


def test_a_file_holds_a_key_and_its_last_line_end_is_none_of_it(tmp_path: Path) -> None:
    for name, content in (("secret", SECRET + "\n"), ("pem", public_pem(rsa_key()))):
        path = tmp_path / name
        path.write_text(content)
        key, alg = (SECRET, "HS256") if name == "secret" else (rsa_key(), "RS256")
        verifier = verifier_of(jwt_key=str(path))
        assert verifier.verify(mint(key=key, alg=alg), "subscribe")


def test_a_pem_key_on_one_line_is_understood() -> None:
    pem = public_pem(ec_key()).replace("\n", "\\n")
    assert verifier_of(jwt_key=pem).verify(mint(key=ec_key(), alg="ES256"), "subscribe")


def test_bad_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "huge").write_bytes(b"x" * (64 * 1024 + 1))
    for name, says in (("pipe", "a file"), ("empty", "empty"), ("huge", "64 KiB")):
        assert says in problem(jwt_key=str(tmp_path / name))


def test_a_key_never_shows(tmp_path: Path) -> None:
    config = Config(jwt_key=SECRET, publish_origins="https://a.example")
    guard = make_guard(config, control())
    assert guard is not None
    ring = guard.verifier._rings["publish"]
    shown = [repr(config), str(config.model_dump()), repr(ring._keys), repr(guard)]
    assert not [text for text in shown if SECRET in text]
    assert SECRET not in problem(jwt_key=SECRET, publish_token="t", jwt_algorithms="XX")


@pytest.mark.parametrize("secret", [None, SECRET])
def test_libraries_for_keys_are_not_loaded_without_keys_that_need_them(secret: str | None) -> None:
    program = (
        "import sys, fastsse.server, fastsse.config as c; "
        f"c.Config(jwt_key={secret!r}); print('jwt' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@given(secret=st.binary(min_size=64) | st.text(min_size=64).map(str.encode))
@example(b"ssh-rsa " + b"A" * 64)
@example(b"ecdsa-sha2-nistp256 " + b"A" * 64)
@example(b'["kty", {"kty": "oct", "k": "' + b"A" * 64 + b'"}]')
@example(b"---- BEGIN PUBLIC KEY ----" + b"A" * 64 + b"---- END PUBLIC KEY ----")
@example(SECRET_64.encode())
@settings(max_examples=300, deadline=None)
def test_a_secret_is_taken_exactly_when_pyjwt_takes_it(secret: bytes) -> None:
    assume(not secret.startswith(b"-----BEGIN "))
    try:
        prepared = HMACAlgorithm(HMACAlgorithm.SHA512).prepare_key(secret)
    except InvalidKeyError:
        with pytest.raises(BadKey):
            check_key(secret, ["HS512"])
    else:
        assert prepared == secret
        assert check_key(secret, ["HS512"]).algorithms == {"HS512"}


@pytest.mark.parametrize("kid", [None, "first"])
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_token_signed_with_a_secret_is_that_of_pyjwt(algorithm: str, kid: str | None) -> None:
    claims = {"mercure": {"subscribe": ["a", "\u00fc"]}, "exp": 1_900_000_000}
    token = encode_token(claims, SECRET_64.encode(), algorithm, kid)
    assert jwt.decode(token, SECRET_64, [algorithm]) == claims
    assert token == jwt.encode(claims, SECRET_64, algorithm, headers={"kid": kid} if kid else None)


# --- Options together


@pytest.mark.parametrize(
    ("options", "named", "says"),
    [
        ({"jwt_key": SECRET, "publish_token": "t"}, "publish_token", "left out"),
        ({"jwks_url": "https://a/k", "publish_token": "t"}, "publish_token", "left out"),
        (
            {"jwt_key": SECRET, "allow_anonymous_publish": True},
            "allow_anonymous_publish",
            "false",
        ),
        ({"subscriber_jwt_key": SECRET}, "publisher_jwt_key", "together with subscriber_jwt_key"),
        ({"publisher_jwt_key": SECRET}, "subscriber_jwt_key", "anonymous must be true"),
        (
            {k: SECRET for k in ("jwt_key", "publisher_jwt_key", "subscriber_jwt_key")},
            "jwt_key",
            "left out",
        ),
        ({"jwt_algorithms": "HS256"}, "jwt_algorithms", "left out without jwt_key"),
        ({"jwt_previous_key": SECRET}, "jwt_previous_key", "left out without jwt_key"),
        (
            {"jwt_key": SECRET, "jwt_previous_key": OTHER_SECRET},
            "jwt_previous_until",
            "set together with",
        ),
        (
            {
                "jwt_key": SECRET,
                "jwt_previous_key": "x",
                "jwt_previous_until": "2030-01-01T00:00:00Z",
            },
            "jwt_previous_key",
            "32 bytes",
        ),
    ],
)
def test_contradicting_options_are_refused_at_start(
    options: dict[str, object], named: str, says: str
) -> None:
    text = problem(**options)
    assert text.startswith(f"{named} = ")
    assert says in text


@pytest.mark.parametrize(
    "options",
    [
        {"jwt_key": SECRET, "host": "0.0.0.0"},
        {"publisher_jwt_key": SECRET, "anonymous": True},
        {"publisher_jwt_key": SECRET, "subscriber_jwt_key": public_pem(ec_key())},
        {"jwt_key": SECRET, "jwks_url": "https://example.com/keys"},
        {"jwt_key": SECRET_64, "jwt_algorithms": "HS256,HS512"},
        {"anonymous": True},
    ],
)
def test_options_that_fit_together_are_taken(options: dict[str, object]) -> None:
    Config(**options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("jwt_algorithms", "none"),
        ("jwt_algorithms", "hs256"),
        ("jwt_algorithms", "HS256,ES256K"),
        ("jwks_url", "ftp://a/b"),
        ("jwks_url", "https://user:secret@a/b"),
        ("jwks_url", "https://a:x/b"),
        ("jwks_url", "keys.json"),
        ("jwks_url", "https://a/ b"),
        ("jwt_cookie", "a b"),
        ("jwt_cookie", ""),
        ("jwt_previous_until", "tomorrow"),
        ("jwt_previous_until", "2030-01-01T00:00:00"),
        ("jwt_previous_until", 5),
        ("jwt_audience", ["a" * 2000]),
        ("jwt_leeway", "1h"),
        ("ticket_lifetime", "0s"),
        ("jwt_key", ""),
        ("jwt_key", "a\0b" * 20),
    ],
)
def test_values_that_mean_nothing_are_refused(option: str, value: object) -> None:
    assert problem(**{option: value}).startswith(option)


def test_a_plain_key_set_url_is_doubted() -> None:
    assert "https" in load({"jwks_url": "http://keys.example/x"}).notes[0]
    assert not load({"jwks_url": "http://127.0.0.1/x"}).notes


def test_without_a_key_there_is_no_guard() -> None:
    assert make_guard(Config(anonymous=True, jwt_audience="x"), control()) is None


# --- Rotation


def test_the_previous_key_is_taken_until_its_end() -> None:
    verifier = verifier_of(
        jwt_key=SECRET, jwt_previous_key=OTHER_SECRET, jwt_previous_until="2100-01-01T00:00:00Z"
    )
    raw = mint(key=OTHER_SECRET)
    assert verifier.verify(raw, "publish")
    now = verifier._now_s()
    verifier._now_s = lambda: now + 100 * 365 * 24 * 3600
    endless = mint({"mercure": {"publish": []}}, key=OTHER_SECRET)
    for late in (raw, endless):  # What was remembered ends too.
        with pytest.raises(Unauthorised):
            verifier.verify(late, "publish")
    assert verifier.verify(mint({"mercure": {"publish": []}}), "publish")


def test_the_previous_key_may_be_of_another_kind() -> None:
    verifier = verifier_of(
        jwt_key=public_pem(rsa_key()),
        jwt_previous_key=SECRET,
        jwt_previous_until="2100-01-01T00:00:00Z",
    )
    assert verifier.verify(mint(), "publish")
    assert verifier.verify(mint(key=rsa_key(), alg="RS256"), "publish")
    forged = mint(key=public_pem(rsa_key()), alg="HS256")
    with pytest.raises(Unauthorised, match="signature"):
        verifier.verify(forged, "publish")


# --- Members of key sets


ALL = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


@pytest.mark.parametrize(
    "member",
    [
        None,
        [],
        {},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": 5, "e": []},
        {"kty": "RSA", "n": "!!!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": ["RSA"]},
    ],
    ids=repr,
)
def test_what_is_no_key_to_verify_with_is_left_out(member: Any) -> None:
    assert key_of_jwk(member, ALL) is None


def test_a_members_own_words_are_heeded() -> None:
    def algorithms(**members: Any) -> set[str]:
        key = key_of_jwk({**jwk(rsa_key(), "a"), **members}, ALL)
        return set() if key is None else set(key.algorithms)

    assert algorithms() == {"RS256", "PS256"}
    assert algorithms(alg="PS256", use="sig", key_ops=["verify"]) == {"PS256"}
    for members in (
        {"use": "enc"},
        {"alg": "RS512"},
        {"alg": "ES256"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": 5},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"kid": 7},
    ):
        assert algorithms(**members) == set(), members


def test_a_key_is_deaf_to_other_algorithms() -> None:
    key = key_of_jwk(jwk(ec_key(), "a"), ALL)
    assert isinstance(key, Key)
    assert key.algorithms == {"ES256"}
    assert not key.verifies("HS256", b"", b"")
    assert not key.verifies("none", b"", b"")
