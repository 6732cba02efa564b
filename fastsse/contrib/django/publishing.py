"""Publishes from views, models and tasks, when the transaction is committed."""

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import jwt
from django.core.signals import setting_changed
from django.db import transaction

from fastsse.client import Client, ClientError, Outbox
from fastsse.contrib.django.conf import Settings, load

__all__ = ["client", "publish", "publisher_token"]

log = logging.getLogger("fastsse.django")
_lock: Final = threading.Lock()
_clients: Final[dict[int, tuple[Client, Outbox | None]]] = {}


def publish(
    topics: str | Sequence[str], data: Any, *, using: str | None = None, **fields: Any
) -> None:
    """Publishes an event when the transaction is committed; outside of a transaction at once. An
    event of a transaction that is rolled back is not published.

    Arguments:
        topics, data, fields: as of `fastsse.client.Client.publish`: event, id, private, key, ttl.
        using: the database whose transaction it is.

    What fails is logged, and does not fail the request: its data is committed already. With the
    setting `OUTBOX` the event then waits in a file and is sent later. Raises
    ImproperlyConfigured.
    """
    load()
    transaction.on_commit(lambda: _publish_now(topics, data, fields), using=using)


def _publish_now(topics: str | Sequence[str], data: Any, fields: dict[str, Any]) -> None:
    try:
        client().publish(topics, data, **fields)
    except ClientError as error:
        log.error("An event was not published: %s", error, extra={"topics": topics})


def client() -> Client:
    """The client of this project; one for each process. Any thread. Raises
    ImproperlyConfigured."""
    with _lock:
        one = _clients.get(os.getpid())
        if one is None:
            one = _clients[os.getpid()] = _made(load())
        return one[0]


def publisher_token(found: Settings) -> str | None:
    """A token that may publish everything, for this process; None: the server needs none."""
    if found.jwt_key is None:
        return None
    claims = {"sub": "django", "iat": int(time.time()), "mercure": {"publish": ["*"]}}
    return jwt.encode(claims, found.jwt_key, algorithm=found.algorithm)


def _made(found: Settings) -> tuple[Client, Outbox | None]:
    outbox = None if found.outbox is None else Outbox.of_process(found.outbox)
    token = publisher_token(found)
    return Client(found.url, token=token, timeout_s=found.timeout_s, outbox=outbox), outbox


def _forget(*, setting: str, **_: Any) -> None:
    """Tests change settings."""
    if setting == "FASTSSE":
        with _lock:
            one = _clients.pop(os.getpid(), None)
        if one is not None:
            one[0].close()
            if one[1] is not None:
                one[1].close()


setting_changed.connect(_forget)
