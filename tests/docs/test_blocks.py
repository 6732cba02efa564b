"""Every block of code in the documentation that can run is run (`docs/writing.md`)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks_of, pages
from tests.docs.servers import Servers
from tests.docs.session import Session, _begins, _same


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    started = Servers(tmp_path_factory.mktemp("served"), {})
    yield started
    started.stop()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_the_page_run(page: Path, servers: Servers, tmp_path: Path) -> None:
    session = Session(servers, tmp_path)
    try:
        for block in blocks_of(page):
            session.run(block)
        session.end()
    finally:
        session.close()
        shutil.rmtree(tmp_path, ignore_errors=True)


def run(servers: Servers, tmp_path: Path, text: str) -> None:
    """Runs a page that has this text."""
    page = ROOT / "docs" / "guides" / "not-there.md"
    path = tmp_path / "page.md"
    path.write_text(text)
    folder = tmp_path / "run"
    folder.mkdir()
    session = Session(servers, folder)
    try:
        for block in blocks_of(path):
            object.__setattr__(block, "page", page)
            session.run(block)
        session.end()
    finally:
        session.close()


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nfalse\n```",
        "```sh\ncurl -f http://127.0.0.1:8080/nothing-here\n```",
        "```console\n$ echo one\ntwo\n```",
        "```python\nraise SystemExit(3)\n```",
        "```toml\nlag_polcy = 'skip'\n```",
        '```json\n{"a": }\n```',
        "```js\nconst = 1;\n```",
        "<!-- not run: -->\n```sh\ntrue\n```",
    ],
)
def test_a_block_that_does_not_work_fails(servers: Servers, tmp_path: Path, text: str) -> None:
    with pytest.raises(AssertionError):
        run(servers, tmp_path, text)


def test_blocks_share_a_shell_a_folder_and_a_stream(servers: Servers, tmp_path: Path) -> None:
    run(
        servers,
        tmp_path,
        "```console\n$ curl -N 'http://127.0.0.1:8080/events?topic=shared'\n: fastsse\n…\n"
        "data: hello\n```\n\n"
        "```sh\nWORD=hello\necho $WORD > word.txt\n```\n\n"
        "```console\n$ curl -d \"$WORD\" 'http://127.0.0.1:8080/events?topic=shared'\n"
        '{"id":"1795304300442-1"}\n$ cat word.txt\nhello\n```\n\n'
        "<!-- run: fails -->\n```sh\nfalse\n```\n",
    )


def test_lines_are_compared_with_what_is_shown() -> None:
    assert _same(['{"id":"1795304300442-1"}'], ['{"id":"1895304300442-7"}'])
    assert _same(["a … c", "…", "z"], ["a b c", "y", "y", "z"])
    assert not _same(["a"], ["a", "b"])
    assert _begins(["a"], ["a", "b"])
    assert not _begins(["b"], ["a", "b"])


def test_a_mark_that_means_nothing_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- run: servre -->\n```sh\ntrue\n```\n")
    with pytest.raises(ValueError, match="servre"):
        blocks_of(page)
