"""The place that a stream is shown as its own: never that of a private event which it may not see,
and as new as possible."""

import pytest

from fastsse.auth.rights import Rights
from fastsse.hub.resume.pages import newest_shown_place, shown_place
from tests.hub.readers import Audience
from tests.hub.test_history_reads import START, Kept

NO_RIGHTS = None
OF_A, OF_B, OF_ALL = (Rights(subscribe=[name]) for name in ("a", "b", "*"))


def shown(kept: Kept, rights: Rights | None, *, template: bool = False) -> int:
    selectors = ("{x}",) if template else ("a",)
    topics = kept.template("{x}", "a") if template else kept.named("a")
    audience = Audience(selectors, topics, rights)
    newest = newest_shown_place(kept.history, audience)
    head = kept.history.head
    assert shown_place(kept.history, audience, head) == newest
    assert shown_place(kept.history, audience, START) == START
    return newest - START


@pytest.mark.parametrize(("rights", "place"), [(NO_RIGHTS, 1), (OF_B, 1), (OF_A, 3), (OF_ALL, 3)])
def test_private_events_behind_the_newest_public_one(rights: Rights | None, place: int) -> None:
    kept = Kept()
    kept.add("a")
    kept.add("a", private=True)
    kept.add("a", private=True)
    assert shown(kept, rights) == place


@pytest.mark.parametrize(("rights", "place"), [(NO_RIGHTS, 0), (OF_B, 0), (OF_A, 1), (OF_ALL, 1)])
def test_a_private_event_alone(rights: Rights | None, place: int) -> None:
    kept = Kept()
    kept.add("a", private=True)
    assert shown(kept, rights) == place


def test_a_private_event_of_another_topic_is_passed_only_with_everything() -> None:
    kept = Kept()
    kept.add("a")
    kept.add("a", private=True)
    kept.add("other", private=True)
    for rights, place in ((NO_RIGHTS, 1), (OF_B, 1), (OF_A, 2), (OF_ALL, 3)):
        assert shown(kept, rights) == place


def test_the_head_is_shown_when_it_is_public() -> None:
    kept = Kept()
    kept.add("a", private=True)
    kept.add("other")
    for rights in (NO_RIGHTS, OF_B, OF_A, OF_ALL):
        assert shown(kept, rights) == 2


def test_a_template_is_shown_the_head_with_grants_and_else_the_newest_public_place() -> None:
    kept = Kept()
    kept.add("a")
    kept.add("a", private=True)
    kept.add("b", private=True)
    for rights, place in ((NO_RIGHTS, 1), (OF_B, 3), (OF_A, 3), (OF_ALL, 3)):
        assert shown(kept, rights, template=True) == place


def test_evicted_private_events_are_passed() -> None:
    """A gap event would name their place."""
    kept = Kept(history_events=1)
    kept.add("a")
    kept.add("a", private=True)
    kept.add("a", private=True)
    for rights, place in ((NO_RIGHTS, 2), (OF_B, 2), (OF_A, 3), (OF_ALL, 3)):
        assert shown(kept, rights) == place
