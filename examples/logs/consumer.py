"""What both consumers need of Kafka: messages of a group, committed when they are done with."""

from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import Consumer

BATCH = 500
WAIT_S = 0.2


def batches(broker: str, group: str, ended: Callable[[], bool]) -> Iterator[list[Any]]:
    """Batches of messages; each is committed when the next one is asked for."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            # Fewer and larger answers: a broker sends each group every message.
            "fetch.min.bytes": 65536,
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.subscribe(["logs"])
    try:
        while not ended():
            found = consumer.consume(BATCH, WAIT_S)
            messages = [message for message in found if message.error() is None]
            yield messages
            if messages:
                consumer.commit(asynchronous=False)
    finally:
        consumer.close()
