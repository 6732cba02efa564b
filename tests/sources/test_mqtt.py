"""What only MQTT does: the broker sends unasked, and keeps what is not acknowledged."""

import pathlib
from collections.abc import Iterator

import pytest

from fastsse.errors import Unavailable
from tests.sources.systems import Mqtt
from tests.sources.test_contract import Log, count_of, numbers, running, until, until_read


@pytest.fixture
def system(tmp_path: pathlib.Path) -> Iterator[Mqtt]:
    made = Mqtt(tmp_path / "system")
    made.start()
    yield made
    made.close()


async def test_more_messages_than_may_wait_come_again_in_order(system: Mqtt) -> None:
    """The broker sends 20 that are not acknowledged, and 5 may wait."""
    log = Log()
    log.refusal = Unavailable("memory", 5)
    async with running(system, log, pending=5) as sources:
        await until_read(system, sources)
        system.send(numbers(0, 100))
        await until(lambda: log.refused > 0)
        log.refusal = None
        await until(lambda: "99" in log.data, lambda: log.data)
        assert list(dict.fromkeys(log.data)) == [str(number) for number in range(100)]
        assert count_of(sources, "dropped") == 0
