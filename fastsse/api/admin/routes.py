"""The routes of `/admin`, for every listener that serves operators.

Over 400 lines: a route is a few lines, and all share the guard and the gathering of answers.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import orjson

from fastsse.api.admin.access import ConsoleAccess, Role
from fastsse.api.admin.connections import (
    ConnectionLister,
    Finder,
    Kicker,
    merged_connections,
)
from fastsse.api.admin.explain import Explainer, checks_of
from fastsse.api.admin.nodes import merged_nodes
from fastsse.api.admin.parameters import (
    FILTERS,
    LIMIT_MAX,
    LIMIT_UNASKED,
    connection_filter,
    number,
    parameters,
    read_cursor,
    read_duration,
)
from fastsse.api.admin.topics import SORTS, TopicLister, merged_topics
from fastsse.api.health import no_figures
from fastsse.api.rate_limits import RequestLimits
from fastsse.auth.guard import Guard
from fastsse.auth.revocations import Revocation
from fastsse.config import Config
from fastsse.control.gather import LETTERS, SOURCES, GatherClient, Gathered
from fastsse.control.stats import StatsClient
from fastsse.errors import BadRequest, FastsseError
from fastsse.events import check_topic
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import json_response
from fastsse.http.router import Exchange, Handler, Paths, Route
from fastsse.hub import Hub, Published
from fastsse.log import get_logger, set_level
from fastsse.reserved import check_not_reserved
from fastsse.stacks import stacks

__all__ = ["Admin"]

audit = get_logger("audit")
_RETRY_S_MAX: Final = 24 * 3600.0
_BAR_S_MAX: Final = 30 * 24 * 3600.0
_MS_A_S: Final = 1000
# A row has about 1.5 KiB, and a worker's answer at most 192 KiB.
LETTERS_SHOWN: Final = 20
LETTERS_SHOWN_MAX: Final = 100
LETTERS_REPLAYED_MAX: Final = 1_000_000
_LEVELS: Final = ("debug", "info", "warning", "error")
_PARTS_BYTES_MAX: Final = 64
_OFF: Final = "connection_details is off, so connections can't be listed; only an id can be ended."
Answer = Callable[[Gathered], object]


class Admin:
    """The requests of operators at one worker. Loop thread only.

    Arguments:
        config: the options.
        hub: the worker's.
        gather: asks all workers.
        limits: the request limits of clients.
        guard: refuses the tokens of a subject; None without JWT keys.
        set_access_level: sets the log level of access lines.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        gather: GatherClient,
        limits: RequestLimits,
        guard: Guard | None,
        set_access_level: Callable[[str], None],
    ) -> None:
        self._config = self._topic_rules = config
        self._limits = limits
        self._guard = guard
        self._set_access_level = set_access_level
        self._gather = gather
        self._hub = hub
        self._stats: StatsClient | None = None
        finder = Finder(hub.streams, hub.channels)
        self._gather.teach("connections", ConnectionLister(finder))
        self._gather.teach("kick", Kicker(finder))
        self._gather.teach("topics", TopicLister(hub.topics, hub.channels, hub.history))
        self._gather.teach("explain", Explainer(hub))
        self._gather.teach("log-level", self._on_level)
        self._gather.teach("stacks", lambda question, reply: reply(stacks()))

    def apply_topic_rules(self, config: Config) -> None:
        """Explains topics by the `[[topics]]` of these options."""
        self._topic_rules = config

    def paths(self, access: ConsoleAccess, stats: StatsClient) -> Paths:
        """The routes. Each requires a role of the operator: `read` to see, `act` to change.

        Arguments:
            access: checks the role.
            stats: gives the condition of the service.
        """
        self._stats = stats
        self._gather.teach("nodes", lambda question, reply: reply(stats.own_row()))

        def route(role: Role, handle: Callable[[Request, Exchange, str], None]) -> Route:
            return Route(self._guarded(access, role, handle))

        return {
            b"/admin/connections": {
                b"GET": route("read", self._list_connections),
                b"DELETE": route("act", self._kick),
            },
            b"/admin/topics": {
                b"GET": route("read", self._list_topics),
                b"DELETE": route("act", self._purge),
            },
            b"/admin/nodes": {b"GET": route("read", self._list_nodes)},
            b"/admin/sources": {
                b"GET": route("read", self._list_sources),
                b"PUT": route("act", self._pause_source),
            },
            b"/admin/dead-letters": {
                b"GET": route("read", self._list_letters),
                b"POST": route("act", self._replay_letters),
            },
            b"/admin/explain": {b"GET": route("read", self._explain)},
            b"/admin/stacks": {b"GET": route("read", self._list_stacks)},
            b"/admin/log-level": {
                b"GET": route("read", self._levels),
                b"PUT": route("act", self._change_level),
            },
        }

    def _guarded(
        self,
        access: ConsoleAccess,
        role: Role,
        handle: Callable[[Request, Exchange, str], None],
    ) -> Handler:
        def checked(request: Request, exchange: Exchange) -> None:
            self._limits.take_request(request, None)
            access.allow(request, exchange, role, partial(handle, request, exchange))

        return checked

    # -- connections ------------------------------------------------------------------------------

    def _list_connections(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, (*FILTERS, "limit", "after"))
        limit = number(given, "limit", 1, LIMIT_MAX, LIMIT_UNASKED)
        after = read_cursor(given)

        def answer(gathered: Gathered) -> object:
            if all(one is not None and one.get("off") for *_, one in gathered.answers):
                raise Problem(409, _OFF, field="connection_details")
            return merged_connections(gathered, limit)

        self._ask(
            "connections", exchange, answer, limit=limit, after=after, **connection_filter(given)
        )

    def _kick(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, ("id", "topic", "subject", "address", "agent", "retry", "bar"))
        wanted = connection_filter(given)
        if not wanted:
            raise BadRequest("id", "or another filter must say which connections end")
        retry_s, bar_s = (
            read_duration(given, name, most_s)
            for name, most_s in (("retry", _RETRY_S_MAX), ("bar", _BAR_S_MAX))
        )
        retry_ms = None if retry_s is None else max(1, round(retry_s * _MS_A_S))
        subject = given.get("subject")

        if bar_s is not None:
            self._check_bar(subject)

        def answer(gathered: Gathered) -> object:
            answers = [one for *_, one in gathered.answers if one is not None]
            kicked = sum(one["kicked"] for one in answers)
            audit.info(
                "An operator ended connections.",
                operator=operator,
                client=exchange.peer(),
                kicked=kicked,
                bar_s=bar_s,
                **{f"of_{name}": str(value) for name, value in wanted.items()},
            )
            more = any(one.get("more") for one in answers)
            return {"kicked": kicked, "more": more, "missing": gathered.missing}

        def ended(gathered: Gathered) -> None:
            done = _json(answer(gathered))
            if bar_s is None or subject is None:
                exchange.respond(done)
            else:
                self._bar(subject, bar_s, exchange, lambda: exchange.respond(done))

        self._gather_for("kick", exchange, ended, retry_ms=retry_ms, **wanted)

    def _check_bar(self, subject: str | None) -> None:
        if self._guard is None:
            raise BadRequest("bar", "needs JWT keys: without tokens there are no subjects")
        if subject is None:
            raise BadRequest("bar", "needs subject, whose tokens are refused for this time")

    def _bar(
        self, subject: str, bar_s: float, exchange: Exchange, then: Callable[[], None]
    ) -> None:
        """Refuses all tokens of a subject for at least `bar_s`, then calls `then`."""
        assert self._guard is not None

        def barred(error: FastsseError | None) -> None:
            if error is not None:
                exchange.fail(error)
            else:
                then()

        bar = Revocation(None, subject, None, time.time() + bar_s)
        self._guard.revocations.revoke(bar, barred)

    # -- topics, sources, explanations ------------------------------------------------------------

    def _list_topics(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, ("topic", "sort", "limit", "after"))
        limit = number(given, "limit", 1, LIMIT_MAX, LIMIT_UNASKED)
        sort = given.get("sort", SORTS[0])
        if sort not in SORTS:
            raise BadRequest("sort", f"must be one of {', '.join(SORTS)}")
        if "after" in given and sort != SORTS[0]:
            raise BadRequest("after", "is for sort=name; other orders have one page")
        asked = {name: given[name] for name in ("topic", "after") if name in given}
        self._ask(
            "topics",
            exchange,
            partial(merged_topics, sort=sort, limit=limit),
            sort=sort,
            limit=limit,
            **asked,
        )

    def _purge(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, ("topic",))
        topic = given.get("topic", "")
        check_topic(topic)
        check_not_reserved((topic,))

        def purged(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                exchange.fail(outcome)
                return
            audit.info(
                "An operator purged a topic.",
                operator=operator,
                client=exchange.peer(),
                of_topic=topic,
            )
            exchange.respond(_json({"id": outcome.last.decode()}))

        self._hub.purge_topic(topic, purged)

    def _list_nodes(self, request: Request, exchange: Exchange, operator: str) -> None:
        parameters(request, ())
        self._ask("nodes", exchange, merged_nodes)

    def _list_sources(self, request: Request, exchange: Exchange, operator: str) -> None:
        parameters(request, ())
        self._ask(SOURCES, exchange, _sources_of)

    def _pause_source(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, ("source", "paused"))
        name, paused = given.get("source"), given.get("paused")
        if name is None:
            raise BadRequest("source", "is missing")
        if paused not in ("true", "false"):
            raise BadRequest("paused", "must be true or false")
        audit.warning(
            "An operator pauses or resumes a source.",
            operator=operator,
            client=exchange.peer(),
            source=name,
            paused=paused,
        )

        def answer(gathered: Gathered) -> object:
            found = _sources_of(gathered)
            if all(row["name"] != name for row in found["sources"]) and not gathered.missing:
                raise Problem(404, "There is no source of this name.")
            return found

        self._ask(SOURCES, exchange, answer, source=name, paused=paused == "true")

    def _list_letters(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, ("source", "limit"))
        limit = number(given, "limit", 1, LETTERS_SHOWN_MAX, LETTERS_SHOWN)
        self._ask_letters(given, exchange, count=limit)

    def _replay_letters(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, ("source", "limit"))
        limit = number(given, "limit", 1, LETTERS_REPLAYED_MAX, LETTERS_REPLAYED_MAX)
        audit.warning(
            "An operator replays dead letters.",
            operator=operator,
            client=exchange.peer(),
            source=given.get("source"),
        )
        self._ask_letters(given, exchange, count=limit, replays=True)

    def _ask_letters(self, given: Mapping[str, str], exchange: Exchange, **members: object) -> None:
        if "source" not in given:
            raise BadRequest("source", "is missing")

        def answer(gathered: Gathered) -> object:
            found = gathered.answers[0][2] if gathered.answers else None
            if found is None:
                raise Problem(503, "The dead letters can't be read now.")
            if "letters" not in found:
                raise Problem(404, "There is no source of this name with dead letters here.")
            return found

        # Only this node is asked. Its file is its own, and a shared store is the same on all nodes.
        self._ask(LETTERS, exchange, answer, here=True, source=given["source"], **members)

    def _explain(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, ("topic",))
        topic = given.get("topic")
        assert self._stats is not None

        def explain(checks: list[Any], gathered: Gathered | None) -> None:
            if gathered is not None and topic is not None:
                answers = [one for *_, one in gathered.answers if one is not None]
                is_cut = any(check["name"] == "slow clients" for check in checks)
                of_topic = checks_of(answers, topic, self._topic_rules, self._config, is_cut=is_cut)
                checks = [*checks, *(check._asdict() for check in of_topic)]
            missing = [] if gathered is None else gathered.missing
            exchange.respond(_json({"topic": topic, "checks": checks, "missing": missing}))

        def known(condition: bytes | FastsseError) -> None:
            if isinstance(condition, FastsseError):
                exchange.fail(no_figures(condition))
                return
            checks = orjson.loads(condition)
            if topic is None:
                explain(checks, None)
            else:
                self._gather_for("explain", exchange, partial(explain, checks), topic=topic)

        self._stats.condition(known)

    def _list_stacks(self, request: Request, exchange: Exchange, operator: str) -> None:
        parameters(request, ())

        def answer(gathered: Gathered) -> object:
            rows = [
                {"node": node, "worker": worker, "stacks": text}
                for node, worker, text in gathered.answers
            ]
            return {"processes": rows, "missing": gathered.missing}

        self._ask("stacks", exchange, answer)

    # -- log levels -------------------------------------------------------------------------------

    def _levels(self, request: Request, exchange: Exchange, operator: str) -> None:
        parameters(request, ())
        exchange.respond(_json({"levels": set_level({})}))

    def _change_level(self, request: Request, exchange: Exchange, operator: str) -> None:
        given = parameters(request, ("level", "part"))
        level, part = given.get("level"), given.get("part")
        if level not in _LEVELS:
            raise BadRequest("level", f"must be one of {', '.join(_LEVELS)}")
        if part is not None and not (part.isidentifier() and len(part) <= _PARTS_BYTES_MAX):
            raise BadRequest("part", "must be the name of a part, such as access or http")

        def answer(gathered: Gathered) -> object:
            audit.warning(
                "An operator changed a log level.",
                operator=operator,
                client=exchange.peer(),
                level_now=level,
                part=part,
            )
            return {"levels": set_level({}), "missing": gathered.missing}

        self._ask("log-level", exchange, answer, level=level, part=part)

    def _on_level(self, question: Mapping[str, Any], reply: Callable[[object], None]) -> None:
        levels = set_level(question)
        if question.get("part") in (None, "access"):
            self._set_access_level(question["level"])
        reply(levels)

    def _ask(self, what: str, exchange: Exchange, answer: Answer, **members: object) -> None:
        """Asks all workers, and responds with what `answer` returns for their answers."""
        self._gather_for(
            what, exchange, lambda gathered: exchange.respond(_json(answer(gathered))), **members
        )

    def _gather_for(
        self,
        what: str,
        exchange: Exchange,
        then: Callable[[Gathered], None],
        **members: object,
    ) -> None:
        def gathered(outcome: Gathered | FastsseError) -> None:
            try:
                if isinstance(outcome, FastsseError):
                    raise outcome
                then(outcome)
            except FastsseError as error:
                exchange.fail(error)

        self._gather.ask(what, gathered, **members)


def _sources_of(gathered: Gathered) -> dict[str, Any]:
    rows = [{**row, "node": node} for node, _, rows in gathered.answers for row in rows or ()]
    return {"sources": rows, "missing": gathered.missing}


def _json(value: object) -> Any:
    return json_response(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
