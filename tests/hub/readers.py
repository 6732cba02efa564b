"""Who reads pages in tests that have no channels, and pages without a store behind them."""

from dataclasses import dataclass
from typing import Any

from fastsse.auth.rights import Rights
from fastsse.backbone.memory import MemoryBackbone
from fastsse.hub.history import PAGE_BYTES, History, Selection
from fastsse.hub.resume.pages import JoinedPage, Pages
from fastsse.hub.resume.store_queries import StoreQueries


@dataclass(frozen=True)
class Audience:
    """A channel, as far as pages are concerned."""

    selectors: tuple[str, ...]
    topics: Selection
    rights: Rights | None = None
    view: None = None
    core_view: None = None


class Nobody:
    """Asks, and is answered within the call."""

    ended = False

    def answered(self, outcome: Any) -> None:
        raise AssertionError("the memory backbone answers at once")


def memory_pages(history: History, page_bytes: int = PAGE_BYTES, **cache: int) -> Pages:
    return Pages(history, StoreQueries(MemoryBackbone(lambda: 0), 1), page_bytes, **cache)


def read(pages: Pages, audience: Audience, after: int) -> JoinedPage:
    page = pages.read(audience, after, Nobody())
    assert isinstance(page, JoinedPage)
    return page
