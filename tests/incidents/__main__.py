"""`python -m tests.incidents [NAME…]`: plays incidents, and writes how each was seen."""

import argparse
import asyncio
import sys
import tempfile
import traceback
from pathlib import Path

from tests.incidents.plays import PLAYS, Play, Seen, play
from tests.incidents.scene import FASTER, Scene, faster_rules, say, watching


async def played(incidents: list[Play], folder: Path) -> list[tuple[Play, Seen]]:
    """Plays one after the other; what is not seen is written to standard error."""
    found = []
    async with watching(folder) as watch:
        for number, incident in enumerate(incidents):
            own = folder / str(number)
            own.mkdir()
            scene = Scene(own, watch)
            try:
                say(incident.name)
                found.append((incident, await play(incident, scene)))
            except (AssertionError, TimeoutError):
                traceback.print_exc()
            finally:
                await scene.close()
    return found


def table(found: list[tuple[Play, Seen]]) -> str:
    """A table of how each incident was seen."""
    waits = {rule["alert"]: rule.get("for", "0ms") for rule in faster_rules()["groups"][0]["rules"]}
    lines = [
        f"Alerts run {FASTER} times faster than in deploy/alerts.yml.",
        "",
        "| incident | alert, after | console, after | `fastsse why`, within | says |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one.name} | {one.alert}, {seen.alert_s:.1f} s (its `for`: {waits[one.alert]}) | "
        f"{seen.console} {seen.console_s:.1f} s | {seen.why_s:.1f} s | {seen.why} |"
        for one, seen in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Plays what is named; all without a name."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [one.name for one in PLAYS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    wanted = parser.parse_args().names
    if unknown := set(wanted) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    incidents = [one for one in PLAYS if not wanted or one.name in wanted]
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(played(incidents, Path(folder)))
    print(table(found))
    sys.exit(len(found) < len(incidents))


if __name__ == "__main__":
    main()
