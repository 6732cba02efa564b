"""The reader thread: a connection of its own, one query at a time."""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from fastsse.backbone.sqlite.damage import Damage
from fastsse.backbone.sqlite.evictions import StoredEvictions
from fastsse.backbone.sqlite.queries import HistoryQueries
from fastsse.backbone.sqlite.schema import Connect, open_reading
from fastsse.errors import FastsseError, Unavailable
from fastsse.log import get_logger

__all__ = ["READ_AGAIN_S", "SqliteReader"]

log = get_logger("history")
READ_AGAIN_S: Final = 1


class Question(Protocol):
    """A query; its answer is called on the loop thread."""

    def __call__(self, reading: HistoryQueries, /) -> object: ...


Answer = Callable[[object | FastsseError], None]


class SqliteReader:
    """Answers queries in the order in which they arrive.

    Arguments:
        path: the file.
        evictions, damage: as `Reading` takes them.
        call: hands a call over to the loop thread.
        connect: opens connections.

    The connection is opened for the first query, and again after `closed`.
    """

    def __init__(
        self,
        path: str,
        evictions: StoredEvictions,
        damage: Damage,
        call: Callable[[Callable[[], None]], None],
        connect: Connect = sqlite3.connect,
    ) -> None:
        self._path: Final = path
        self._evictions: Final = evictions
        self._damage: Final = damage
        self._call: Final = call
        self._connect: Final = connect
        self._questions: queue.SimpleQueue[tuple[Question, Answer] | None] = queue.SimpleQueue()
        self._in_use: Final = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._reading: HistoryQueries | None = None
        self._thread: Final = threading.Thread(
            target=self._run, name="fastsse-history-reader", daemon=True
        )

    def start(self) -> None:
        """Starts the thread. Once."""
        self._thread.start()

    def ask(self, question: Question, answer: Answer) -> None:
        """Calls `answer` on the loop thread, with an error if the file can't be read."""
        self._questions.put((question, answer))

    @contextmanager
    def closed(self) -> Iterator[None]:
        """A context without a connection; queries wait. Waits for the running query first. Any
        thread."""
        with self._in_use:
            self._drop()
            yield

    def _drop(self) -> None:
        connection, self._connection, self._reading = self._connection, None, None
        if connection is not None:
            connection.close()

    def stop(self) -> None:
        """Answers the waiting queries, then ends. Does not wait for that."""
        self._questions.put(None)

    def join(self) -> None:
        """Waits for the end."""
        self._thread.join()
        self._drop()

    def _run(self) -> None:
        while (asked := self._questions.get()) is not None:
            question, answer = asked
            found = self._answer(question)
            self._call(lambda answer=answer, found=found: answer(found))  # type: ignore[misc]

    def _answer(self, question: Question) -> object | FastsseError:
        with self._in_use:
            try:
                return question(self._opened())
            except Exception as error:
                # Any error: the caller gets an answer, and later callers too.
                log.error("History can't be read.", path=self._path, error=str(error))
                self._drop()
                return Unavailable("backbone", READ_AGAIN_S)

    def _opened(self) -> HistoryQueries:
        if self._reading is None:
            self._connection = open_reading(self._path, self._connect)
            self._reading = HistoryQueries(self._connection, self._evictions, self._damage)
        return self._reading
