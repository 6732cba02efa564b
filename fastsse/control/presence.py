"""Presence: the selectors of every stream, in one place, and an event for each change.

Workers send the control service the streams that opened and ended, one message a turn of their
loop. The control service writes them to its roster: its own when the node is alone, else the
roster of all nodes. The roster publishes each change as a private event, and answers requests for
the list. The streams of a killed worker are removed and announced as ended. Nothing is kept or
sent while the option `subscriptions` is off.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, starmap
from sys import intern
from typing import Any, Final, NamedTuple

import orjson

from fastsse.control.cluster import Answer, Change, Subscriber, packed_of
from fastsse.control.feeds import reported
from fastsse.control.roster import LocalRoster, Subscribed
from fastsse.control.service import Broadcast, ControlClient, ControlStore, Publish
from fastsse.errors import FastsseError, Unavailable
from fastsse.paging import Pager

__all__ = ["SUBJECT", "FoundSubscriptions", "Presence", "PresenceService"]

SUBJECT: Final = "presence"
# Bytes of changes in one message, about.
_MESSAGE_BYTES: Final = 64 * 1024
# Streams of an ended worker that are removed in one turn of the loop: about 2 ms.
_TAKEN_OUT_A_TURN: Final = 500
_OPENED, _ENDED = 1, 0
_SLOT_BITS: Final = 32


class FoundSubscriptions(NamedTuple):
    """The number of subscriptions, and as many of them as were requested."""

    total: int
    subscriptions: list[Subscribed]


class PresenceService:
    """Knows all streams of a node. Made by `service.Services`; its process's loop thread."""

    def __init__(self, broadcast: Broadcast, store: ControlStore, publish: Publish) -> None:
        # What each subscriber has behind its name, by name, by worker.
        self._held: dict[int, dict[str, bytes]] = {}
        # Of ended workers, until their streams are removed.
        self._leaving: dict[int, dict[str, bytes]] = {}
        self._pager = Pager()
        self._roster = store.roster or LocalRoster(publish)
        self._roster.begin(self._present)

    def on_message(self, worker: int, message: bytes) -> None:
        """Streams opened and ended. O(selectors)."""
        held = self._held.setdefault(worker, {})
        leaving = self._leaving.get(worker, {})
        changes: list[Change] = []
        for what, name, *rest in orjson.loads(message):
            if name in leaving:  # The worker restarted before this stream was removed.
                held[name] = leaving.pop(name)
            if what == _ENDED:
                if name in held:
                    changes.append((packed_of(name, held.pop(name)), False))
            elif name not in held:  # Else it is a repeat.
                selectors, payload = rest
                # The roster has the same text as a key.
                rest = held[intern(name)] = Subscriber(name, selectors, payload).rest()
                changes.append((packed_of(name, rest), True))
        self._roster.note(changes)

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """Lists subscriptions of a topic or all, of one subscriber or all. O(listed)."""
        topic, name, most = orjson.loads(message)
        self._roster.find(topic, name, most, answer)

    def on_worker_gone(self, worker: int) -> None:
        """The streams of a worker ended with it. They are removed a page a turn."""
        gone = self._held.pop(worker, {})
        if worker in self._leaving:
            self._leaving[worker].update(gone)
        elif gone:
            self._leaving[worker] = gone
            self._pager.add(self._taken_out(worker, gone), self._roster.note)

    def _taken_out(self, worker: int, leaving: dict[str, bytes]) -> Iterator[list[Change]]:
        while leaving:
            count = min(len(leaving), _TAKEN_OUT_A_TURN)
            yield [(packed_of(*leaving.popitem()), False) for _ in range(count)]
        del self._leaving[worker]

    def _present(self) -> Iterator[bytes]:
        parts = (*self._held.values(), *self._leaving.values())
        return starmap(packed_of, chain.from_iterable(held.items() for held in parts))


class Presence:
    """A worker's side: reports its streams to the control service, and requests the list. Loop
    thread only.

    Arguments:
        control: the way to the control service.
        call_soon: the loop's. Changes of one turn are sent together.
        name_of: a stream's id, 32 hexadecimal digits.
    """

    def __init__(
        self,
        control: ControlClient,
        call_soon: Callable[[Callable[[], None]], object],
        name_of: Callable[[int], str] = "{:032x}".format,
    ) -> None:
        self._name_of = name_of
        self._control = control
        self._call_soon = call_soon
        # By slot of the sender's table: the stream, and what its subscriber has behind its name.
        self._streams = array("Q")
        self._rests: list[bytes | None] = []
        self._unsent: list[bytes] = []
        control.on_back.append(self._notify_all)

    def on_stream_opened(self, stream: int, selectors: tuple[str, ...], payload: Any) -> None:
        """A stream is open."""
        slot = _slot(stream)
        missing = slot + 1 - len(self._rests)
        if missing > 0:
            self._streams.frombytes(bytes(missing * self._streams.itemsize))
            self._rests.extend([None] * missing)
        self._streams[slot] = stream
        rest = self._rests[slot] = Subscriber("", reported(selectors), payload).rest()
        self._note(self._opened(stream, rest))

    def on_stream_closed(self, stream: int) -> None:
        """A stream has ended."""
        slot = _slot(stream)
        if self._is_there(slot) and self._streams[slot] == stream:
            self._rests[slot] = None
            self._note(b'[%d,"%b"]' % (_ENDED, self._name(stream)))

    def find(
        self,
        topic: str | None,
        subscriber: str | None,
        most: int,
        done: Callable[[FoundSubscriptions | FastsseError], None],
    ) -> None:
        """Gives `done` the subscriptions of the whole service to a topic (None: to any) by a
        subscriber (None: by any), at most so many."""
        question = orjson.dumps((topic, subscriber, most))
        self._control.ask(SUBJECT, question, partial(_found, done))

    def _note(self, change: bytes) -> None:
        if not self._unsent:
            self._call_soon(self._notify)
        self._unsent.append(change)

    def _notify(self) -> None:
        changes, self._unsent = self._unsent, []
        self._send(changes)

    def _notify_all(self) -> None:
        """The control service was replaced, so all streams are reported again."""
        there = array("Q", filter(self._is_there, range(len(self._rests))))
        self._control.notify_pages(SUBJECT, self._pages(there))

    def _is_there(self, slot: int) -> bool:
        return slot < len(self._rests) and self._rests[slot] is not None

    def _name(self, stream: int) -> bytes:
        return _urn(self._name_of(stream)).encode()

    def _opened(self, stream: int, rest: bytes) -> bytes:
        """What a worker says of a stream that opened: `[1,name,selectors,payload]`."""
        return b'[%d,"%b",%b' % (_OPENED, self._name(stream), rest)

    def _pages(self, slots: Iterable[int]) -> Iterator[bytes]:
        """Messages that report streams. Those that ended before their page is made are left out,
        so that no page follows the end of a stream that it names."""
        some: list[bytes] = []
        size = 0
        for slot in slots:
            rest = self._rests[slot]
            if rest is not None:
                some.append(self._opened(self._streams[slot], rest))
                size += len(some[-1])
            if size >= _MESSAGE_BYTES:
                yield b"[%b]" % b",".join(some)
                some, size = [], 0
        if some:
            yield b"[%b]" % b",".join(some)

    def _send(self, changes: Sequence[bytes]) -> None:
        """Reports changes in order, in messages of bounded size."""
        some: list[bytes] = []
        size = 0
        for text in changes:
            if some and size + len(text) > _MESSAGE_BYTES:
                self._control.notify(SUBJECT, b"[%b]" % b",".join(some))
                some, size = [], 0
            some.append(text)
            size += len(text)
        if some:
            self._control.notify(SUBJECT, b"[%b]" % b",".join(some))


def _slot(stream: int) -> int:
    return stream & ((1 << _SLOT_BITS) - 1)


def _found(
    done: Callable[[FoundSubscriptions | FastsseError], None], answer: bytes | FastsseError
) -> None:
    if isinstance(answer, FastsseError):
        done(answer)
        return
    try:
        count, listed = orjson.loads(answer)
    except ValueError:
        # Another program may have written into a list that nodes share.
        done(Unavailable("backbone", retry_after_s=1))
        return
    done(FoundSubscriptions(count, [Subscribed(*one) for one in listed]))


def _urn(digits: str) -> str:
    """A stream's id in the form of a UUID (RFC 9562 §4), which is the form of names in Mercure."""
    parts = digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]
    return f"urn:uuid:{'-'.join(parts)}"
