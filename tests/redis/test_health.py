"""What lasts is said, and not said over and over."""

import logging

import pytest

from fastsse.errors import FastsseError
from fastsse.redis.errors import RedisRefusal
from fastsse.redis.health import REASONS_LOGGED, REMINDERS_EACH_S, Outage
from tests.redis.cluster import node


def test_an_outage_is_said_at_once_then_rarely_and_its_end_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fastsse")
    outage = Outage("It is away.", "It is there.")
    outage.is_over()
    for tenths in range(100):
        outage.lasts("refused", tenths / 10)
    outage.lasts(str(RedisRefusal("LOADING", "")), 10)
    outage.lasts("refused", 10 + REMINDERS_EACH_S)
    outage.is_over()
    outage.is_over()
    said = [(record.msg, getattr(record, "why", None)) for record in caplog.records]
    assert said == [
        ("It is away.", "refused"),
        ("It is away.", "Redis is loading its data (LOADING)"),
        ("It is away.", "refused"),
        ("It is there.", None),
    ]


def test_an_outage_that_has_ever_other_reasons_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage("It is away.", "It is there.")
    for number in range(1000):
        outage.lasts(f"reason {number}", number / 1000)
    assert len(caplog.records) == REASONS_LOGGED


async def test_a_start_says_at_most_once_that_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FastsseError, match="Redis can't be reached"):
        async with node("redis://127.0.0.1:1", redis_start="500ms"):
            pass
    assert [record.msg for record in caplog.records].count("Waiting for Redis.") <= 1
