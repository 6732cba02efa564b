"""An application that writes logs: JSON lines of two services, plain lines of a third.

    python app.py FOLDER [LINES_A_SECOND [LINES]]

It knows nothing of Kafka or fastsse.
"""

import json
import pathlib
import random
import sys
import time
from datetime import UTC, datetime

LEVELS = ("debug", "info", "info", "info", "info", "warning", "error")
WORDS = ("request done", "cache miss", "connection opened", "retry", "row locked", "token renewed")
TICK_S = 0.05


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 50.0
    most = int(sys.argv[3]) if len(sys.argv) > 3 else sys.maxsize
    folder.mkdir(parents=True, exist_ok=True)
    rand = random.Random(7)
    files = {name: (folder / name).open("a") for name in ("shop.json", "auth.json", "web.log")}
    begun_s, written = time.monotonic(), 0
    while written < most:
        due = min(most, int((time.monotonic() - begun_s) * rate) + 1)
        for number in range(written, due):
            write(files, rand, number)
        written = max(written, due)
        for file in files.values():
            file.flush()
        time.sleep(TICK_S)


def write(files: dict, rand: random.Random, number: int) -> None:
    level, text = rand.choice(LEVELS), rand.choice(WORDS)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    name = ("shop.json", "auth.json", "web.log")[number % 3]
    if name == "web.log":
        files[name].write(f"{now} {level.upper()} {text} n={number}\n")
        return
    line = {
        "time": now,
        "service": name.removesuffix(".json"),
        "level": level,
        "message": text,
        "trace": f"{number // 10:08x}",
        "n": number,
    }
    files[name].write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
