"""The lines that a terminal shows at the start: addresses, page, store, and who may publish."""

from collections.abc import Sequence

from fastsse.config import Config
from fastsse.config.store import MEMORY, show_store
from fastsse.version import __version__

__all__ = ["start_lines"]


def start_lines(
    config: Config, main: Sequence[str], admin: Sequence[str], has_page: bool, workers: int = 1
) -> tuple[str, str, str]:
    """Three lines for people; a log for programs has one record with the same facts.

    Arguments:
        main: where subscribers and publishers connect, as `http://127.0.0.1:8080` or `unix:/path`.
        admin: where the page and the metrics are; equal to `main` without an admin port.
        has_page: whether `/` is the page.
    """
    several = f" with {workers} workers" if workers > 1 else ""
    who = "with a token" if config.publishing_needs_token else "by anyone"
    return (
        f"fastsse {__version__} is serving on {', '.join(main)}{several}.",
        _places(admin, has_page),
        f"Store: {show_store(config.store)}{_forgets(config)}. Publishing: {who}. "
        "Ctrl-C drains and ends it.",
    )


def _forgets(config: Config) -> str:
    return " (history and durable streams end with it)" if config.store == MEMORY else ""


def _places(admin: Sequence[str], has_page: bool) -> str:
    """Prefers an address that a browser can open."""
    web = next((address for address in admin if not address.startswith("unix:")), None)
    if web is None:
        return f"Metrics: /metrics on {admin[0]}."
    page = f"Page: {web}/  " if has_page else ""
    return f"{page}Metrics: {web}/metrics"
