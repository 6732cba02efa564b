"""`docs/reference/openapi.yaml` is valid, has every route, and is what a running server does."""

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate

from fastsse.version import __version__
from tests.auth.minting import mint
from tests.docs.blocks import ROOT
from tests.docs.servers import Served

DOCUMENT = yaml.safe_load((ROOT / "docs" / "reference" / "openapi.yaml").read_text("utf-8"))
# `make api` tries more.
EXAMPLES = int(os.environ.get("FASTSSE_API_EXAMPLES", "6"))
GENERATED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 6,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
KEY = "a-secret-of-at-least-32-characters"
OPTIONS = (
    f"--jwt-key {KEY} --anonymous --subscriptions --ping 20s --pong-timeout 1m --console-minting 1h"
)
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
STREAMS = ("subscribe", "mercureSubscribe")
# Requests that the document allows and the server refuses: what one request alone can't say.
NEVER_ACCEPTED = (
    "renew", "pong", "getSubscription", "receiveWebhook", "deleteEvent", "subscribeByWebSocket",
    "purgeTopicAsOperator", "cancelScheduled", "listDeadLetters", "replayDeadLetters",
    "pauseSource",
)  # fmt: skip


OPERATIONS = [
    operation["operationId"]
    for path in DOCUMENT["paths"].values()
    for operation in path.values()
    if isinstance(operation, dict)
]


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    """By `operationId`. The library is imported here: only one process of several needs it."""
    import schemathesis

    schema = schemathesis.openapi.from_dict(DOCUMENT)
    found = (result.ok() for result in schema.get_all_operations())
    return {operation.definition.raw["operationId"]: operation for operation in found}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(OPTIONS, tmp_path_factory.mktemp("api"), {})
    yield server
    server.stop()


def token(publish: str = "*") -> str:
    claims = {
        "mercure": {"publish": [publish], "subscribe": ["*"]},
        "sub": "tester",
        "fastsse": {"console": "act"},
        "exp": int(time.time()) + 600,
    }
    return mint(claims, key=KEY).decode()


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["info"]["version"] == __version__


def test_the_document_has_every_path_of_the_source() -> None:
    found = set()
    for folder in ("http", "api"):
        for path in (ROOT / "fastsse" / folder).glob("*.py"):
            found |= set(re.findall(r'b"(/[a-z.]*)"', path.read_text("utf-8")))
    found.remove("/console")  # A folder: the files of the page.
    described = {path for path in DOCUMENT["paths"] if path.count("/") == 1}
    assert described == found


def check(
    operation_id: str, case: Any, served: Served, headers: dict[str, str], feed: str = ""
) -> int:
    """Sends a request and compares the answer with the document; the status. A stream has topics
    or a feed, which the document can't say."""
    base_url = f"http://{served.address}"
    if operation_id == "subscribe":
        case.query = {"topic": ["a"], **(case.query or {})}
        case.query.pop("topic" if feed else "feed", None)
        if feed:
            case.query["feed"] = feed
    if operation_id in STREAMS:
        return _check_stream(case, base_url, headers)
    from schemathesis.checks import CHECKS, load_all_checks

    response = case.call(base_url=base_url, headers=headers, timeout=20)
    load_all_checks()
    case.validate_response(response, checks=CHECKS.get_by_names(_CHECKS))
    return int(response.status_code)


def _check_stream(case: Any, base_url: str, headers: dict[str, str]) -> int:
    """As `check`, for an answer that does not end: it is left behind its head."""
    how = case.as_transport_kwargs(base_url=base_url, headers=headers)
    with requests.request(**how, stream=True, timeout=20) as response:
        status = response.status_code
        described = case.operation.definition.raw["responses"]
        assert str(status) in described, response.text
        kind = response.headers["Content-Type"].partition(";")[0]
        if status == 200 and "wait" in (case.query or {}):
            assert kind in ("application/json", "application/x-ndjson")
        elif status == 200:
            assert kind == "text/event-stream"
            assert next(response.iter_content(1))
        else:
            assert kind == "application/problem+json"
            assert (
                response.json().keys()
                <= DOCUMENT["components"]["schemas"]["Problem"]["properties"].keys()
            )
    return status


@pytest.mark.parametrize("with_token", [True, False], ids=["token", "anonymous"])
@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_the_server_answers_as_the_document_says(
    operation_id: str, with_token: bool, served: Served, operations: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {token()}"} if with_token else {}
    operation = operations[operation_id]
    statuses = set()

    @given(case=operation.as_strategy())
    @GENERATED
    def run(case: Any) -> None:
        statuses.add(check(operation_id, case, served, headers))

    run()
    if with_token and operation_id not in NEVER_ACCEPTED:
        assert statuses & {200, 201, 204}, f"no request was accepted: {statuses}"


@pytest.mark.parametrize("feed", ["stored", "0" * 32])
def test_streams_of_feeds_are_answered_as_the_document_says(
    feed: str, served: Served, operations: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    url = f"http://{served.address}/feeds"
    stored = requests.post(url, json=["a", "b/{c}"], headers=headers, timeout=20).json()["feed"]

    @given(case=operations["subscribe"].as_strategy())
    @GENERATED
    def run(case: Any) -> None:
        check("subscribe", case, served, headers, stored if feed == "stored" else feed)

    run()


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_what_the_document_does_not_allow_is_answered_as_it_says(
    operation_id: str, served: Served, operations: dict[str, Any]
) -> None:
    from schemathesis import GenerationMode

    operation = operations[operation_id]
    if not (operation.query or operation.headers or operation.body):
        return
    headers = {"Authorization": f"Bearer {token()}"}

    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @GENERATED
    def run(case: Any) -> None:
        check(operation_id, case, served, headers)

    run()


def test_a_refused_request_is_a_problem_of_the_document(served: Served) -> None:
    """The problem bodies that few random requests reach."""
    url = f"http://{served.address}"
    known = DOCUMENT["components"]["schemas"]["Problem"]["properties"].keys()
    auth = {"Authorization": f"Bearer {token()}"}
    less = {"Authorization": f"Bearer {token('b')}"}
    ndjson = auth | {"Content-Type": "application/x-ndjson"}
    for status, field, response in [
        (400, "topic", requests.get(f"{url}/events", timeout=20)),
        (400, "color", requests.post(f"{url}/events?topic=a&color=b", b"x", headers=auth)),
        (401, "Authorization", requests.post(f"{url}/events?topic=a", b"x", timeout=20)),
        (403, None, requests.post(f"{url}/events?topic=a", b"x", headers=less)),
        (404, None, requests.get(f"{url}/nothing", timeout=20)),
        (405, None, requests.put(f"{url}/events", timeout=20)),
        (406, "Accept", requests.post(f"{url}/events", headers={"Accept": "text/event-stream"})),
        (413, "body", requests.post(f"{url}/events?topic=a", b"x" * 2**21, headers=auth)),
        (415, "Content-Type", requests.post(f"{url}/events", b"x", headers=auth)),
        (421, "Host", requests.get(f"{url}/events?topic=a", headers={"Host": "evil.example"})),
        (400, None, requests.post(f"{url}/events", b'{"topic":"a"}\n', headers=ndjson)),
    ]:
        assert response.status_code == status, response.text
        assert response.headers["Content-Type"] == "application/problem+json"
        problem = response.json()
        assert problem["status"] == status
        assert problem.keys() <= known
        if field is not None:
            assert problem["field"] == field
