"""Pages that are read before they are asked for are those that the store would give."""

import asyncio
from pathlib import Path

from fastsse.backbone import Stretch, Stretched
from fastsse.errors import FastsseError, Unavailable
from fastsse.evicted import Evicted
from fastsse.streams import ahead
from fastsse.streams.ahead import PAGES_MAX, ReadAhead
from tests.http.conftest import Start, asked
from tests.streams.test_protocol import TEXT

PAGE = 1024


class Store:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._open: list[tuple[int, Stretched]] = []

    def read(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        self.asked.append(after)
        self._open.append((after, done))

    def answer(self, *, is_last: bool = False, error: FastsseError | None = None) -> None:
        after, done = self._open.pop(0)
        done(error or Stretch([], after + 10, is_last, Evicted()))


async def test_a_page_that_was_read_ahead_is_given_once_within_the_call() -> None:
    store, found = Store(), list[Stretch | FastsseError]()
    pages = ReadAhead(store.read)
    pages.begin("s", 10, PAGE)
    assert not store.asked  # The answer of this turn comes first.
    await asyncio.sleep(0)
    pages.begin("s", 10, PAGE)
    await asyncio.sleep(0)
    assert store.asked == [10]
    store.answer()
    pages.read("s", 10, PAGE, found.append)
    assert [one.through for one in found if isinstance(one, Stretch)] == [20]
    pages.read("s", 10, PAGE, found.append)
    pages.read("s", 20, PAGE, found.append)
    assert store.asked == [10, 10, 20]
    assert not len(pages)


async def test_those_that_ask_while_a_page_is_being_read_wait_for_it() -> None:
    store, found = Store(), list[Stretch | FastsseError]()
    pages = ReadAhead(store.read)
    pages.begin("s", 10, PAGE)
    await asyncio.sleep(0)
    for _ in "12":
        pages.read("s", 10, PAGE, found.append)
    store.answer()
    assert (len(found), store.asked, len(pages)) == (2, [10], 0)


async def test_the_end_of_a_stream_and_an_error_are_read_again_for_those_that_wait() -> None:
    store, found = Store(), list[Stretch | FastsseError]()
    pages = ReadAhead(store.read)
    for error in (None, Unavailable("backbone", 1)):
        pages.begin("s", 10, PAGE)
        await asyncio.sleep(0)
        pages.read("s", 10, PAGE, found.append)
        # Something may have been appended before it was asked for.
        store.answer(is_last=error is None, error=error)
        assert not found
        store.answer()
        assert isinstance(found.pop(), Stretch)
    assert (store.asked, len(pages)) == ([10] * 4, 0)


async def test_pages_that_no_client_asks_for_are_bounded_and_give_way() -> None:
    store = Store()
    pages = ReadAhead(store.read)
    for after in range(PAGES_MAX + 3):
        pages.begin("s", after, PAGE)
        await asyncio.sleep(0)
    assert len(pages) == len(store.asked) == PAGES_MAX  # All of them are being read.
    store.answer()
    pages.begin("s", 99, PAGE)
    await asyncio.sleep(0)
    assert (len(pages), store.asked[-1]) == (PAGES_MAX, 99)


async def test_clients_that_read_in_order_are_known_by_the_ends_of_pages() -> None:
    pages = ReadAhead(Store().read)
    pages.note_end("s", 1)
    assert pages.is_in_order("s", 1)
    assert not pages.is_in_order("s", 2)
    assert not pages.is_in_order("t", 1)
    for place in range(ahead.ENDS_MAX):
        pages.note_end("t", place)
    assert not pages.is_in_order("s", 1)


async def test_a_long_stream_in_a_file_is_read_in_order_while_it_grows(
    tmp_path: Path, start: Start
) -> None:
    server = await start(store=f"sqlite:{tmp_path}/h.db", history_total="4MiB")
    parts, got, offset = list[bytes](), b"", "-1"

    async def append(number: int) -> None:
        parts.append(b"%05d;" % number * 10_000)
        assert (await asked(server, "POST", "/streams/s", TEXT, body=parts[-1])).status == 204

    assert (await asked(server, "PUT", "/streams/s", TEXT)).status == 201
    for number in range(120):
        await append(number)
    for number in range(120, 1000):
        answer = await asked(server, "GET", f"/streams/s?offset={offset}")
        got += answer.body
        offset = answer.headers["stream-next-offset"]
        if "stream-up-to-date" in answer.headers and number > 130:
            break
        if number < 130:
            await append(number)
    assert got == b"".join(parts)
