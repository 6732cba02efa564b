"""Group 3: writes every line to files, one a day.

    python archive.py 127.0.0.1:9092 FOLDER

A line is `{"place": "logs/0/17", "line": …}`. After a crash lines may stand twice; the place tells.
"""

import json
import pathlib
import signal
import sys
import time

from consumer import batches

is_ended = False


def end(*_: object) -> None:
    global is_ended
    is_ended = True


def encoded(message) -> str:
    """A message as a line of the file."""
    place = f"{message.topic()}/{message.partition()}/{message.offset()}"
    text = (message.value() or b"").decode("utf-8", "replace")
    try:
        line = json.loads(text)
    except ValueError:
        line = text
    return json.dumps({"place": place, "line": line}, ensure_ascii=False)


def main() -> None:
    broker, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, end)
    for messages in batches(broker, "archive", lambda: is_ended):
        if messages:
            day = time.strftime("%Y-%m-%d", time.gmtime())
            with (folder / f"{day}.jsonl").open("a") as file:
                file.write("\n".join(map(encoded, messages)) + "\n")


if __name__ == "__main__":
    main()
