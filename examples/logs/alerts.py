"""Group 2: counts errors and publishes an alert when a service has too many.

    python alerts.py 127.0.0.1:9092 http://127.0.0.1:8080

More than THRESHOLD errors of a service within WINDOW_S are one alert, at most one each QUIET_S.
FASTSSE_TOKEN is the token to publish with, if the server wants one.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections import defaultdict, deque

from consumer import batches

from fastsse.client.publisher import Publisher

THRESHOLD = int(os.environ.get("THRESHOLD", 20))
WINDOW_S = float(os.environ.get("WINDOW_S", 10))
QUIET_S = float(os.environ.get("QUIET_S", 30))


class Alerts:
    """Decides which line makes an alert."""

    def __init__(self) -> None:
        self._errors: dict[str, deque[float]] = defaultdict(deque)
        self._quiet_until_s: dict[str, float] = {}

    def take(self, line: dict, now_s: float) -> dict | None:
        """The alert that a line brings, or None."""
        if line.get("level") != "error":
            return None
        service = str(line.get("service", "unknown"))
        errors = self._errors[service]
        errors.append(now_s)
        while errors[0] < now_s - WINDOW_S:
            errors.popleft()
        if len(errors) <= THRESHOLD or now_s < self._quiet_until_s.get(service, 0):
            return None
        self._quiet_until_s[service] = now_s + QUIET_S
        return {"service": service, "errors": len(errors), "window_s": WINDOW_S, "last": line}


def parsed(value: bytes | None) -> dict:
    """A line; empty for what is none."""
    try:
        line = json.loads(value or b"")
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


async def main() -> None:
    broker, url = sys.argv[1], sys.argv[2]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    alerts = Alerts()
    async with Publisher(url, token=os.environ.get("FASTSSE_TOKEN"), patience_s=3600) as publisher:
        found = batches(broker, "alerting", ended.is_set)
        while (messages := await asyncio.to_thread(next, found, None)) is not None:
            for message in messages:
                alert = alerts.take(parsed(message.value()), time.monotonic())
                if alert is not None:
                    # A batch that is read again after a crash publishes its alerts once.
                    place = f"{message.topic()}/{message.partition()}/{message.offset()}"
                    await publisher.publish("alerts", alert, event="alert", key=place)


if __name__ == "__main__":
    asyncio.run(main())
