"""An event's time is kept apart from its place, so a clock that was ahead once does no harm."""

from hypothesis import given
from hypothesis import strategies as st

from fastsse._core import encode_frame
from fastsse.config import Config
from fastsse.hub.history import History
from fastsse.hub.resume.cursor import begin
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import N_BITS, TimeMarks, position_at
from fastsse.subscriptions import Cursor

HOUR_MS = 3_600_000


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=60), st.integers(0, 6_000))
def test_a_place_is_found_by_time_within_a_tenth_of_a_second(times: list[int], asked: int) -> None:
    events = [(time, position_at(10_000) + n) for n, time in enumerate(times, 1)]
    marks = TimeMarks(events)
    place = marks.place_at(asked)
    older = [position for time, position in events if time < asked]
    assert place <= max([position_at(asked), *older[-1:]])
    much_older = [position for time, position in events if time < asked - TimeMarks.MARK_MS]
    assert place >= max([position_at(asked), *much_older[-1:]])


def test_marks_are_bounded_and_then_answer_with_an_earlier_place() -> None:
    marks, ahead = TimeMarks(), position_at(1 << 40)
    for second in range(3 * TimeMarks.MARKS_MAX):
        marks.note(second * 1_000, ahead + second)
        assert len(marks) <= TimeMarks.MARKS_MAX
    for second in range(0, 3 * TimeMarks.MARKS_MAX, 97):
        place = marks.place_at(second * 1_000)
        assert place < ahead + second, "nothing of that time or later is left out"
    assert marks.place_at(3 * TimeMarks.MARKS_MAX * 1_000) >= ahead + 3 * TimeMarks.MARKS_MAX - 2


class Reader:
    """Reads one topic."""

    rights = None
    selectors = ("a",)

    def __init__(self, topics: Topics) -> None:
        self.topics = [topics.intern("a")]


def kept(age: str) -> tuple[History, Reader]:
    topics = Topics(Rules(Config(history_age=age), "disconnect"), position_at(1))
    return History(topics, 1 << 30, position_at(1)), Reader(topics)


def publish(history: History, reader: Reader, position: int, time_ms: int) -> None:
    frame = encode_frame(b"x", None, None, 0, position, False, time_ms)
    history.append(frame, tuple(reader.topics), None)


def test_since_goes_by_time_after_a_clock_that_was_ahead() -> None:
    history, reader = kept("30d")
    wrong_ms = 10 * HOUR_MS
    ahead = position_at(wrong_ms)
    publish(history, reader, ahead + 1, wrong_ms)
    right_ms = wrong_ms - HOUR_MS
    for second in range(60):
        publish(history, reader, ahead + 2 + second, right_ms + second * 1_000)
    now_ms = right_ms + 60_000
    begun = begin(history, reader, Cursor("since", now_ms - 5_000))
    assert begun is not None
    page = history.page(reader.topics, begun.replay.after)
    assert len(page.frames) == 5
    assert begun.gap is None
    assert page.evicted.through <= begun.replay.after, "and there is no gap"


def test_history_age_goes_by_time_after_a_clock_that_was_ahead() -> None:
    history, reader = kept("10s")
    wrong_ms = 10 * HOUR_MS
    ahead = position_at(wrong_ms)
    publish(history, reader, ahead + 1, wrong_ms)
    right_ms = wrong_ms - HOUR_MS
    for second in range(60):
        publish(history, reader, ahead + 2 + second, right_ms + second * 1_000)
    assert not history.sweep(right_ms + 60_000)
    times = [frame.time_ms for frame in history.page(reader.topics, 0).frames]
    assert times[0] == right_ms + 50_000
    assert len(times) == 10


def test_a_clock_that_reaches_the_positions_is_their_time_again() -> None:
    history, reader = kept("30d")
    base_ms = 10 * HOUR_MS
    publish(history, reader, position_at(base_ms) + 1, base_ms - 2_000)
    for second in range(10):
        publish(
            history, reader, position_at(base_ms + second * 1_000) + 2, base_ms + second * 1_000
        )
    for second in range(10):
        begun = begin(history, reader, Cursor("since", base_ms + second * 1_000))
        assert begun is not None
        assert len(history.page(reader.topics, begun.replay.after).frames) == 10 - second
    assert [position >> N_BITS for _, position in history.times] == [base_ms]
