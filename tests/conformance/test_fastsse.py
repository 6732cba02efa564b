"""fastsse against the conformance suite, in its short form."""

from tests.conformance import FOLDER  # Makes the suite importable.

from sse_conformance.adapter import load, names  # isort: skip
from sse_conformance.run import Options, run  # isort: skip


def test_fastsse_fails_no_check_of_the_short_form() -> None:
    done = run(load("fastsse"), Options(is_short=True))
    assert [result for result in done.results if result.status == "fail"] == []
    untested = [r.id for r in done.results if r.status != "pass" and "clients." not in r.id]
    assert untested == []


def test_every_adapter_that_comes_with_the_suite_is_one() -> None:
    assert {"fastsse", "mercure", "centrifugo", "nchan"} <= set(names())
    for name in names():
        adapter = load(name)
        assert adapter.name == name
        assert adapter.title
        assert adapter.documentation
        assert (FOLDER / "sse_conformance" / "adapters" / f"{name}.toml") == adapter.path
