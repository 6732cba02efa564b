"""Records for systemd's journal, by its native protocol: each field of a record is one of the
journal, so `journalctl STREAM=…` or `TRACE_ID=…` finds it.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import array
import errno
import fcntl
import json
import logging
import os
import re
import socket
from typing import Any, Final

__all__ = ["JOURNAL", "JournalHandler", "encode_fields"]

JOURNAL: Final = "/run/systemd/journal/socket"
_NAME: Final = "fastsse"
# The numbers of syslog.
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_FORBIDDEN: Final = re.compile(r"[^A-Z0-9_]")
_NAME_MAX: Final = 64
_LENGTH_BYTES: Final = 8
_TOO_LONG: Final = errno.EMSGSIZE
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class JournalHandler(logging.Handler):
    """Sends records to the journal. A record that it does not take at once is dropped and counted;
    the next one that it takes says how many.

    Arguments:
        path: the journal's socket. Raises OSError if there is none.

    The formatter must give JSON objects (`log.render_json`). Any thread.
    """

    def __init__(self, path: str = JOURNAL) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one record."""
        fields: dict[str, Any] = json.loads(self.format(record))
        if self._dropped:
            fields["dropped_records"] = self._dropped
        try:
            self._send(encode_fields(fields))
        except OSError:
            self._dropped += 1
        else:
            self._dropped = 0

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except OSError as error:
            if error.errno != _TOO_LONG:
                raise
            self._send_file(message)

    def _send_file(self, message: bytes) -> None:
        """Passes a long record in a sealed file of memory."""
        file = os.memfd_create("fastsse-journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as memory:
                memory.write(message)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            self._socket.sendmsg(
                [], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
            )
        finally:
            os.close(file)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
        super().close()


def encode_fields(fields: dict[str, Any]) -> bytes:
    """A record as the journal reads it. `event` is its MESSAGE, `level` its PRIORITY; the name of
    another field is written in capitals."""
    level = str(fields.pop("level", "info"))
    parts = [
        _field("MESSAGE", str(fields.pop("event", ""))),
        _field("PRIORITY", str(_PRIORITIES.get(level, 6))),
        _field("SYSLOG_IDENTIFIER", _NAME),
    ]
    fields.pop("time", None)  # The journal has its own.
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        parts.append(_field(_journal_name(name), text))
    return b"".join(parts)


def _journal_name(name: str) -> str:
    plain = _FORBIDDEN.sub("_", name.upper()).strip("_")[:_NAME_MAX]
    return plain if plain and not plain[0].isdigit() else f"FIELD_{plain}"[:_NAME_MAX]


def _field(name: str, value: str) -> bytes:
    content = value.encode("utf-8", "backslashreplace")
    if b"\n" not in content:
        return b"%b=%b\n" % (name.encode(), content)
    length = len(content).to_bytes(_LENGTH_BYTES, "little")
    return b"%b\n%b%b\n" % (name.encode(), length, content)
