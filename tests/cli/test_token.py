"""`fastsse token`: what it mints a server takes, and what it explains is what a server thinks."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastsse.cli import main
from tests.auth.minting import (
    OTHER_SECRET,
    SECRET,
    ec_key,
    grants,
    jwk,
    mint,
    private_pem,
    public_pem,
    rsa_key,
)
from tests.cli.commandline import forget_options

TWO_KEYS = ("--publisher-jwt-key", SECRET, "--subscriber-jwt-key", OTHER_SECRET)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `fastsse token …` with text on standard input: status, output and errors."""
    forget_options(monkeypatch)

    def run_command(*arguments: str, given: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        status = main(["token", *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run_command


def test_what_is_minted_is_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSSE_JWT_KEY", SECRET)
    grant = ("--publish", "a", "--publish", "b/{x}", "--subscribe", "*", "--payload", '{"n":1}')
    status, text, _ = run("mint", *grant, "--subject", "me", "--lifetime", "10m")
    assert status == 0
    status, out, _ = run("explain", "--json", "--topic", "b/1", "--topic", "c", given=text)
    assert status == 0
    told = json.loads(out)
    assert told["sides"]["publish"]["grants"] == ["a", "b/{x}"]
    assert told["sides"]["subscribe"]["grants"] == ["*"]
    assert told["claims"]["mercure"]["payload"] == {"n": 1}
    assert told["claims"]["sub"] == "me"
    assert told["claims"]["exp"] - told["claims"]["iat"] == 600
    assert told["topics"]["b/1"] == {"publish": True, "read private events": True}
    assert told["topics"]["c"] == {"publish": False, "read private events": True}


@pytest.mark.parametrize("alg", ["RS256", "PS512", "ES256"])
def test_keys_of_every_kind_sign(run: Run, tmp_path: Path, alg: str) -> None:
    key = ec_key() if alg == "ES256" else rsa_key()
    path = tmp_path / "private.pem"
    path.write_text(private_pem(key))
    _, text, _ = run("mint", "--key", str(path), "--alg", alg, "--kid", "k", "--subscribe", "a")
    flags = ("--jwt-key", public_pem(key), "--jwt-algorithms", alg)
    status, out, _ = run("explain", *flags, given=text)
    assert status == 0
    assert f'"{alg}", kid "k"' in out
    assert "As subscribers show it: taken." in out
    assert "As publishers show it: The token has no mercure.publish." in out


def test_audience_and_issuer_are_those_of_the_options(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "fastsse.toml"
    file.write_text(f'jwt_key = "{SECRET}"\njwt_audience = ["sse"]\njwt_issuer = ["https://a"]\n')
    _, text, _ = run("mint", "--config", str(file), "--lifetime", "never")
    status, out, _ = run("explain", "--config", str(file), given=text)
    assert status == 0
    assert "exp        never" in out
    assert 'aud        "sse"' in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mint"], "jwt_key"),
        (["mint", "--jwt-key", "short"], "at least 32 bytes"),
        (["mint", "--key", "short"], "at least 32 bytes"),
        (["mint", "--key", "/no/such/file"], "no such file"),
        (["mint", "--key", SECRET, "--alg", "RS256"], "a secret is for"),
        (["mint", "--key", SECRET, "--alg", "none"], "a secret is for"),
        (["mint", "--key", SECRET, "--lifetime", "soon"], "lifetime"),
        (["mint", "--key", SECRET, "--payload", "{"], "JSON"),
        (
            ["mint", "--publish", "a", "--subscribe", "a", *TWO_KEYS],
            "two tokens",
        ),
    ],
)
def test_what_can_not_be_minted_is_said_in_one_line(
    run: Run, arguments: list[str], says: str
) -> None:
    status, out, err = run(*arguments)
    assert status != 0
    assert says in err
    assert not out
    assert SECRET not in err


def test_a_public_key_can_not_sign(run: Run) -> None:
    status, _, err = run("mint", "--jwt-key", public_pem(rsa_key()))
    assert status == 2
    assert "public key can't sign" in err


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (mint(key=OTHER_SECRET), "signature"),
        (mint({"mercure": {}, "exp": time.time() - 60}), "expired"),
        (mint({"mercure": {}, "nbf": time.time() + 86_400}), "not valid yet"),
        (mint(header={"alg": "none"}), "alg"),
        (mint(header={"crit": ["x"]}), "crit"),
        (mint(header={"typ": "logout+jwt"}), "typ"),
        (b"a.b.c.d.e", "JWE"),
        (b"\xff\x1b[31m", "three parts"),
        (b"x.y" * 20_000, "bytes"),
    ],
)
def test_the_reason_of_a_refused_token_is_shown(run: Run, raw: bytes, why: str) -> None:
    text = raw.decode("latin-1")
    status, out, _ = run("explain", "--jwt-key", SECRET, given=f"Bearer {text}\n")
    assert status == 1
    assert why in out
    assert SECRET not in out


@pytest.mark.parametrize("given", ["", "\n"])
def test_without_a_token_the_usage_is_shown(run: Run, given: str) -> None:
    status, out, err = run("explain", given=given)
    assert (status, out) == (2, "")
    assert 'echo "$TOKEN" | fastsse token explain' in err


def test_a_console_role_is_signed_with_the_publishers_key(run: Run) -> None:
    status, text, _ = run("mint", "--console", "read", *TWO_KEYS)
    assert status == 0
    status, out, _ = run("explain", "--json", *TWO_KEYS, given=text)
    told = json.loads(out)
    assert told["claims"]["fastsse"] == {"console": "read"}
    assert "signature" in json.dumps(told["sides"]["subscribe"])
    assert "signature" not in json.dumps(told["sides"]["publish"])
    status, _, err = run("mint", "--console", "write", *TWO_KEYS)
    assert status == 2
    assert "'read', 'act'" in err


def test_without_a_key_the_content_is_shown_and_not_vouched_for(run: Run) -> None:
    claims = {**grants(subscribe=["\x1b[31m"]), "sub": "\x1b[31mred"}
    status, out, _ = run("explain", mint(claims).decode())
    assert status == 0
    assert "Not verified" in out
    assert "\x1b" not in out


def test_a_key_set_in_a_file_is_used(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(json.dumps({"keys": [jwk(rsa_key(), "k")]}))
    raw = mint(key=rsa_key(), alg="RS256", header={"kid": "k"})
    status, out, _ = run("explain", "--jwks-url", str(path), raw.decode())
    assert status == 0
    assert "As publishers show it: taken." in out
    unreachable = ("explain", "--jwks-url", "http://127.0.0.1:1/", raw.decode())
    status, out, _ = run(*unreachable)
    assert status == 1
    assert "can't be fetched" in out


def test_help_shows_the_command_s_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "mint", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--lifetime" in out
    assert "--jwt-leeway" not in out
    assert "`fastsse serve --help` shows them" in " ".join(out.split())
