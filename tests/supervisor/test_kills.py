"""Whatever process is killed, nothing that was acknowledged is lost: a short run of the harness."""

import os
import signal

import pytest

from fastsse.client import listen
from tests.eventstream import Message
from tests.supervisor.harness import Plan, run
from tests.supervisor.ledger import Ledger, Seen


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store", ["sqlite", "memory"])
async def test_random_kills_lose_nothing_and_repeat_nothing(store: str) -> None:
    figures = await run(Plan(kills=6, store=store, pause_s=0.2, seed=3))
    assert figures["faults"] == []
    assert int(str(figures["acknowledged"])) > 20
    assert int(str(figures["batched"])) > 0
    assert int(str(figures["resumes"])) > 0


async def test_resume_works_after_a_restart_of_everything_without_a_new_publish(
    serve, tmp_path
) -> None:
    import httpx

    store = ("--workers", "2", "--store", f"sqlite:{tmp_path / 'h.db'}")
    service = await serve(*store)
    async with httpx.AsyncClient(trust_env=False) as client:
        ids = []
        for n in range(3):
            answer = await client.post(f"{service.url}/events?topic=t", content=f"{n}")
            ids.append(answer.json()["id"])
    # The hub first: no process is left that could have the events in memory.
    os.kill(service.children()["hub"][0], signal.SIGKILL)
    service.signal(signal.SIGKILL)
    await service.ended()
    again = await serve(*store)
    async with listen(again.url, "t", last_event_id=ids[0]) as stream:
        assert [(await anext(stream)).id for _ in range(2)] == ids[1:]


# ── What the ledger holds against a service ───────────────────────────────────────────────────


def seen(*events: tuple[str, str]) -> Seen:
    one = Seen(("t",))
    one.begin("1-0")
    for place, data in events:
        one.take(Message(data, last_event_id=place))
    return one


def ledger(*acknowledged: tuple[str, str]) -> Ledger:
    book = Ledger()
    for place, data in acknowledged:
        book.acknowledge(place, "t", data)
    return book


def test_ledger_finds_nothing_in_a_right_sequence() -> None:
    assert ledger(("1-1", "a"), ("2-1", "b")).faults([seen(("1-1", "a"), ("2-1", "b"))]) == []


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([("1-1", "a")], "never came"),
        ([("2-1", "b"), ("1-1", "a")], "came after"),
        ([("1-1", "a"), ("1-1", "a"), ("2-1", "b")], "2 times"),
        ([("1-1", "a"), ("2-1", "b"), ("3-1", "b")], "2 times"),
        ([("1-1", "x"), ("2-1", "b")], "elsewhere"),
    ],
)
def test_ledger_finds_what_is_wrong(events: list[tuple[str, str]], words: str) -> None:
    faults = ledger(("1-1", "a"), ("2-1", "b")).faults([seen(*events)])
    assert any(words in fault for fault in faults)


def test_ledger_takes_a_gap_for_what_it_says() -> None:
    one = seen()
    one.take(Message('{"reason": "lost"}', "fastsse.gap", "1-5"))
    one.take(Message("b", last_event_id="2-1"))
    book = ledger(("1-1", "a"), ("2-1", "b"))
    assert book.faults([one]) == []
    book.acknowledge("1-9", "t", "c")
    assert len(book.faults([one])) == 1


def test_ledger_takes_a_stream_that_was_not_opened_for_no_event() -> None:
    one = seen(("1-1", "a"))
    one.take(Message('{"reason": "store", "retry_ms": 5000}', "fastsse.refused"))
    one.take(Message("b", last_event_id="2-1"))
    assert ledger(("1-1", "a"), ("2-1", "b")).faults([one]) == []
    assert one.turned_away == {"store": 1}


def test_ledger_raises_for_an_event_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="not expected"):
        seen().take(Message("{}", "fastsse.unheard", "1-1"))


async def test_exception_of_a_subscriber_ends_the_run(monkeypatch) -> None:
    def take(self: Seen, event: Message) -> None:
        raise ValueError("as none of this is")

    monkeypatch.setattr(Seen, "take", take)
    with pytest.raises(ExceptionGroup) as raised:
        await run(Plan(kills=1000, workers=1, subscribers=2))
    assert raised.value.subgroup(ValueError) is not None


def test_position_used_twice_is_found() -> None:
    assert len(ledger(("1-1", "a"), ("1-1", "b")).faults([])) == 1
