"""Promises about the memory of channels: there may be one for each stream."""

import sys
import tracemalloc
from collections.abc import Iterator

import pytest

from fastsse import _core
from fastsse.auth.rights import Rights
from fastsse.config import Config
from fastsse.hub.channels import Channel, Channels
from fastsse.hub.topics import Rules, Topics
from tests.core.conftest import wait_until

CHANNELS = 5_000
# Wide: allocators and versions of Python differ. What is measured is 300 and 234 bytes.
PYTHON_BYTES_MAX = 400
NATIVE_BYTES_MAX = 320


@pytest.fixture
def sender() -> Iterator[_core.Sender]:
    made = _core.Sender(max_connections=1)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def channels(sender: _core.Sender) -> Channels:
    config = Config()
    return Channels(sender, Topics(Rules(config, config.lag_policy), 0))


def test_memory_of_a_channel_of_one_topic_is_bounded(
    channels: Channels, sender: _core.Sender, capsys: pytest.CaptureFixture[str]
) -> None:
    native = _core.native_bytes_held()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(CHANNELS):
            channels.join((f"user/{number}",), None)
            sender.wake()
        python = (tracemalloc.get_traced_memory()[0] - before) / CHANNELS
    finally:
        tracemalloc.stop()
    wait_until(lambda: sender.pending_commands == 0)
    native_each = (_core.native_bytes_held() - native) / CHANNELS
    with capsys.disabled():
        print(f"\na channel of one topic: {python:.0f} B of Python, {native_each:.0f} B natively")
    assert python < PYTHON_BYTES_MAX
    assert native_each < NATIVE_BYTES_MAX
    assert sys.getsizeof(channels[0].topics[0]) == 96  # type: ignore[index]


@pytest.mark.parametrize("is_quiet", [False, True])
def test_channel_of_one_topic_is_found_again_and_forgotten(
    channels: Channels, is_quiet: bool
) -> None:
    first = channels.join(("a",), None, is_quiet=is_quiet)
    assert first.selectors == ("a",)
    assert [topic.name for topic in first.topics or ()] == ["a"]
    assert channels.join(("a",), None, is_quiet=is_quiet) is first
    others: list[Channel] = [
        channels.join(("a",), None, is_quiet=not is_quiet),
        channels.join(("a", "b"), None, is_quiet=is_quiet),
        channels.join(("a",), Rights(subscribe=["a"]), is_quiet=is_quiet),
    ]
    assert len({first, *others}) == len(channels) == 4
    channels.leave(first)
    assert channels.join(("a",), None, is_quiet=is_quiet) is first
    for one in (first, first, *others):
        channels.leave(one)
    assert len(channels) == 0
    assert channels.join(("a",), None, is_quiet=is_quiet).streams == 1


def test_topic_named_as_a_template_is_another_channel_than_the_template(
    channels: Channels,
) -> None:
    template = channels.join(("user/{id}",), None)
    literal = channels.join(("user/{",), None)
    assert not isinstance(template.topics, tuple)
    assert isinstance(literal.topics, tuple)
    assert channels.join(("user/{id}",), None) is template
    assert channels.join(("user/{",), None) is literal
