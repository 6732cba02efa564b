"""`fastsse doctor` finds certificates that clients will refuse, or the server."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastsse import _door
from fastsse.doctor import Finding, Verdict
from fastsse.doctor.certificates import TlsFiles, examine_certificates
from tests.certificates import issue
from tests.doctor.test_checks import LARGE
from tests.doctor.test_command import Run, run

__all__ = ["run"]  # a fixture

try:
    _door.library_version()
except _door.TlsError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)

Issue = Callable[..., tuple[str, str]]


def only(files: TlsFiles) -> Finding:
    (finding,) = examine_certificates(files)
    return finding


@pytest.mark.parametrize(
    ("days", "verdict", "value"),
    [
        (90, Verdict.OK, "valid for 90.0 days"),
        (14.1, Verdict.OK, "valid for 14.1 days"),
        (13.9, Verdict.WARN, "valid for 13.9 days"),
        (-3, Verdict.FAIL, "expired 3.0 days ago"),
    ],
)
def test_its_end_is_judged(tmp_path: Path, days: float, verdict: Verdict, value: str) -> None:
    certificate, key = issue(tmp_path, "a.test", days=days)
    finding = only(TlsFiles((certificate,), (key,)))
    assert (finding.verdict, finding.value) == (verdict, value)
    assert finding.name == f"tls_cert {certificate}"


def test_key_of_another_certificate_is_found(tmp_path: Path) -> None:
    one, other = issue(tmp_path, "a.test"), issue(tmp_path, "b.test")
    found = examine_certificates(TlsFiles((one[0], other[0]), (other[1], other[1])))
    assert [finding.verdict for finding in found] == [Verdict.FAIL, Verdict.OK]
    assert found[0].value == f"{other[1]} is the key of another certificate"


@pytest.mark.parametrize("part", ["missing", "text", "key with a passphrase", "no key in it"])
def test_files_that_can_not_be_used_are_found(tmp_path: Path, part: str) -> None:
    certificate, key = issue(tmp_path, "a.test")
    (tmp_path / "text.pem").write_text("no PEM")
    sealed = issue(tmp_path, "c.test", passphrase=b"x")
    files = {
        "missing": TlsFiles((str(tmp_path / "none.pem"),), (key,)),
        "text": TlsFiles((str(tmp_path / "text.pem"),), (key,)),
        "key with a passphrase": TlsFiles((sealed[0],), (sealed[1],)),
        "no key in it": TlsFiles((certificate,)),
    }
    finding = only(files[part])
    assert finding.verdict is Verdict.FAIL
    assert "has no usable" in finding.value


def test_names_that_no_certificate_has_are_found(tmp_path: Path) -> None:
    one, other = issue(tmp_path, "*.a.test", "a.test"), issue(tmp_path, "b.test")
    names = (
        "a.test",
        "x.a.test",
        "b.test.",
        "127.0.0.1",
        "::1",
        "localhost",
        "x.y.a.test",
        "c.test",
    )
    files = TlsFiles((one[0], other[0]), (one[1], other[1]), names)
    warned = [finding for finding in examine_certificates(files) if finding.verdict is Verdict.WARN]
    assert [one.name for one in warned] == ["allowed_hosts x.y.a.test", "allowed_hosts c.test"]


def test_time_can_be_given() -> None:
    assert abs(TlsFiles(()).now_s - time.time()) < 60
    assert examine_certificates(TlsFiles(())) == ()


def test_the_command_reads_them_from_the_configuration(run: Run, tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "a.test", days=-1)
    file = tmp_path / "fastsse.toml"
    file.write_text(f'tls_cert = ["{certificate}"]\ntls_key = ["{key}"]\n')
    status, out, _ = run(LARGE, "-c", "1000", "--config", str(file))
    assert status == 1
    assert f"fail     tls_cert {certificate}: expired 1.0 days ago" in out
    issue(tmp_path, "a.test", days=60)
    status, out, _ = run(LARGE, "-c", "1000", "--config", str(file), "--json")
    assert status == 0
    found = {one["name"]: one["value"] for one in json.loads(out)["findings"]}
    assert found[f"tls_cert {certificate}"] == "valid for 60.0 days"


def test_streams_with_tls_need_three_descriptors(run: Run, tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "a.test")
    file = tmp_path / "fastsse.toml"
    file.write_text("")
    needed = []
    for text in ("", f'tls_cert = ["{certificate}"]\ntls_key = ["{key}"]\n'):
        file.write_text(text)
        out = run(LARGE, "-c", "100000", "--config", str(file), "--json")[1]
        found = {one["name"]: one["needed"] for one in json.loads(out)["findings"]}
        needed.append(int(found["RLIMIT_NOFILE"].removeprefix("at least ").replace(",", "")))
    assert 2.9 < needed[1] / needed[0] < 3.1
