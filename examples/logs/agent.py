"""Stands in for an agent where none is installed: follows files, adds fields, writes to Kafka.

python agent.py FOLDER 127.0.0.1:9092
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import sys
import time

from confluent_kafka import Producer

LEVEL = re.compile("DEBUG|INFO|WARNING|ERROR")
HOST = socket.gethostname()
is_ended = False


def end(*_: object) -> None:
    global is_ended
    is_ended = True


class File:
    """A followed file; one that was replaced or cut is read from its beginning."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""

    def lines(self) -> list[bytes]:
        """Whole lines since the last call."""
        data = self._rest + self._file.read()
        now = os.stat(self._path)
        if now.st_ino != os.fstat(self._file.fileno()).st_ino or now.st_size < self._file.tell():
            self._file.close()
            self._file = self._path.open("rb")
        *lines, self._rest = data.split(b"\n")
        return lines


def fields(path: pathlib.Path, line: bytes) -> dict:
    """A line with the fields that viewers filter by."""
    text = line.decode("utf-8", "replace")
    found = LEVEL.search(text)
    level = found[0].lower() if found else "info"
    members = {"message": text, "level": level, "service": path.stem}
    if path.suffix == ".json":
        with contextlib.suppress(ValueError, TypeError):  # Else it stays plain text.
            members = {"service": path.stem, **json.loads(text)}
    return {**members, "host": HOST}


def main() -> None:
    folder, broker = pathlib.Path(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGTERM, end)
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5})
    files: dict[pathlib.Path, File] = {}
    while not is_ended:
        for path in (*folder.glob("*.json"), *folder.glob("*.log")):
            if path not in files:
                files[path] = File(path)
            for line in files[path].lines():
                members = fields(path, line)
                while True:
                    try:
                        producer.produce("logs", json.dumps(members), members["service"])
                        break
                    except BufferError:
                        producer.poll(0.1)
        producer.poll(0.05)
        time.sleep(0.05)
    producer.flush(5)


if __name__ == "__main__":
    main()
