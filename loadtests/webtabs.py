"""Two tabs more on Locust's page: how the streams are, and the exact figures."""

from __future__ import annotations

import json

import flask
from locust.web import WebUI

from loadtests.exact import Exact, Observations
from loadtests.trial import Trial

STREAMS, EXACT = "fastsse-streams", "fastsse-exact"
_STREAM_COLUMNS = {"state": "Streams that are", "count": "Now"}
EXACT_COLUMNS = {
    "type": "Type",
    "name": "Name",
    "count": "Count",
    "failed": "Failed",
    "p50": "p50 ms",
    "p90": "p90 ms",
    "p99": "p99 ms",
    "p99_9": "p99.9 ms",
    "max": "Max ms",
}


def exact_rows(exact: Exact) -> list[dict[str, object]]:
    """A row for each type and name."""
    return [
        {
            "type": kind,
            "name": name,
            "safe_name": name,
            "count": entry.count,
            "failed": entry.failed,
            **_milliseconds(entry),
        }
        for (kind, name), entry in sorted(exact.entries.items())
        if entry.count
    ]


def _milliseconds(entry: Observations) -> dict[str, object]:
    names = ("p50", "p90", "p99", "p99_9", "max")
    if not entry.buckets:
        return dict.fromkeys(names, "")
    values = entry.percentiles_us(50, 90, 99, 99.9, 100)
    return {name: value / 1000 for name, value in zip(names, values, strict=True)}


def add_tabs(web_ui: WebUI, trial: Trial) -> None:
    """Adds them to the page and their rows to what the page asks for every second or two."""
    web_ui.template_args["extended_tabs"] = [
        {"title": "Streams", "key": STREAMS},
        {"title": "Exact", "key": EXACT},
    ]
    web_ui.template_args["extended_tables"] = [
        {"key": STREAMS, "structure": _structure(_STREAM_COLUMNS)},
        {"key": EXACT, "structure": _structure(EXACT_COLUMNS)},
    ]

    def extend(response: flask.Response) -> flask.Response:
        if flask.request.path.endswith("/stats/requests") and response.is_json:
            states = sorted(trial.ledger.states().items())
            streams = [{"state": s, "safe_name": s, "count": n} for s, n in states]
            told = {**(response.json or {}), "extended_stats": [
                {"key": STREAMS, "data": streams},
                {"key": EXACT, "data": exact_rows(trial.ledger.exact)},
            ]}  # fmt: skip
            response.set_data(json.dumps(told))
        return response

    assert web_ui.app is not None
    web_ui.app.after_request(extend)


def _structure(columns: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "title": title} for key, title in columns.items()]
