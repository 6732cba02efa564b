"""Subscriptions to durable streams: they wake workers when streams have new content, by webhooks or
by a stream of wakes. Protocol sections 6 and 7.

All of it is in the process that orders, next to the rows of the streams. Workers pass requests on.
"""

from fastsse.wakes.process import SUBJECT, StreamWakes

__all__ = ["SUBJECT", "StreamWakes"]
