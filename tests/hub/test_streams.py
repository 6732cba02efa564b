"""Channels: streams open, share, replay and close; what is not needed is removed."""

import pytest

from tests.hub.recorded import Recorded


def test_a_channel_is_made_before_its_first_stream_and_removed_after_its_last() -> None:
    recorded = Recorded()
    first, second = recorded.open("b", "a"), recorded.open("a", "b", "a")
    assert recorded.take_commands() == [
        ("add_channel", 0, (1, 2), (), False, True, None),
        ("attach", first, 0, True),
        ("attach", second, 0, True),
    ]
    recorded.end(first, 0)
    assert recorded.take_commands() == []
    recorded.end(second, 0)
    assert recorded.take_commands() == [("remove_channel", 0)]
    assert len(recorded.channels) == 0


def test_topics_without_listeners_are_removed_by_the_sweep() -> None:
    recorded = Recorded()
    handle = recorded.open("a")
    recorded.end(handle, 0)
    recorded.take_commands()
    assert not recorded.channels.sweep()
    assert recorded.take_commands() == [("remove_topic", 1)]
    assert len(recorded.topics) == 0


def test_topics_that_are_wanted_again_before_the_sweep_stay() -> None:
    recorded = Recorded()
    recorded.end(recorded.open("a"), 0)
    recorded.open("a")
    recorded.take_commands()
    recorded.channels.sweep()
    assert recorded.take_commands() == []


def test_numbers_of_removed_channels_are_given_again() -> None:
    recorded = Recorded()
    first = recorded.open("a")
    recorded.open("b")
    recorded.end(first, 0)
    recorded.take_commands()
    recorded.open("c")
    assert recorded.take_commands()[0] == ("add_channel", 0, (3,), (), False, True, None)


def test_everything_is_one_channel_under_the_number_of_every_event() -> None:
    recorded = Recorded()
    recorded.open("*", "a")
    recorded.open("*")
    assert recorded.take_commands() == [
        ("add_channel", 0, (0,), (), False, False, None),
        ("attach", 1, 0, True),
        ("attach", 2, 0, True),
    ]
    assert len(recorded.topics) == 0


def test_an_attach_that_fails_leaves_nothing_behind() -> None:
    recorded = Recorded()
    recorded.sender.attach_error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        recorded.open("a", cursor="earliest")
    assert recorded.take_commands() == [
        ("add_channel", 0, (1,), (), False, True, None),
        ("release", 1),
        ("remove_channel", 0),
    ]
    assert (len(recorded.channels), recorded.streams.replays) == (0, 0)


def test_a_channel_that_can_not_be_made_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = Recorded()

    def refuse(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(recorded.sender, "add_channel", refuse, raising=False)
        for topic in ("a", "*"):
            with pytest.raises(MemoryError):
                recorded.open(topic)
    assert recorded.take_commands() == [("release", 1), ("release", 2)]
    assert (len(recorded.channels), recorded.channels.of_everything) == (0, 0)
    recorded.channels.sweep()
    assert len(recorded.topics) == 0
    recorded.open("b")
    assert ("add_channel", 0, (1,), (), False, True, None) in recorded.take_commands()


def test_a_listener_that_fails_leaves_no_stream_behind() -> None:
    recorded = Recorded()
    first, second = recorded.open("a"), recorded.open("b")
    recorded.streams.on_closed = lambda stream: 1 / 0  # type: ignore[assignment]
    recorded.sender.notices = [
        ("closed", first, 0, "reset", 1.5, 3, 400),
        ("closed", second, 1, "reset", 1.5, 3, 400),
    ]
    with pytest.raises(ZeroDivisionError):
        recorded.streams.read_notices()
    assert len(recorded.channels) == 0


def test_a_page_notice_of_a_stream_that_is_live_or_gone_is_nothing() -> None:
    recorded = Recorded()
    handle = recorded.open("a", cursor="earliest")
    recorded.take_commands()
    recorded.sender.notices = [("page", handle), ("page", 12345)]
    recorded.streams.read_notices()
    assert recorded.take_commands() == []


def test_replays_wait_while_memory_is_short_and_go_on_in_turn() -> None:
    recorded = Recorded()
    recorded.sender.memory_bytes = 2 << 20
    first, second = (recorded.open("a", cursor="earliest") for _ in range(2))
    assert recorded.take_commands()[1:] == [
        ("attach", first, 0, False),
        ("attach", second, 0, False),
    ]
    recorded.sender.notices = [("page", first), ("page", second)]
    recorded.streams.read_notices()
    assert recorded.take_commands() == []
    recorded.sender.memory_bytes = 0
    recorded.streams.sweep()
    assert recorded.take_commands() == [("page", first, True), ("page", second, True)]
    assert recorded.streams.replays == 0


def test_a_waiting_replay_that_ends_is_forgotten_while_memory_is_still_short() -> None:
    recorded = Recorded()
    recorded.sender.memory_bytes = 2 << 20
    first, second = (recorded.open("a", cursor="earliest") for _ in range(2))
    recorded.sender.notices = [("page", first), ("page", second)]
    recorded.streams.read_notices()
    recorded.take_commands()
    recorded.end(first, 0)
    assert list(recorded.streams._replayer._waiting) == [second]
    recorded.sender.memory_bytes = 0
    recorded.streams.sweep()
    assert recorded.take_commands() == [("page", second, True)]
