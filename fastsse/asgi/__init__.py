"""fastsse inside an ASGI application: event streams on the application's own port.

    app = fastsse.mount(api, "/events", authorize=grants_of)
    await app.publish("news", {"n": 1})

`mount` gives an ASGI application around yours. A request for its path becomes a stream: the socket
of the client is taken from the ASGI server and handed to the native sender, so a stream costs no
task of the event loop. Where the socket can't be had (TLS in the ASGI server, HTTP/2, a server that
is not known), a task copies the stream from the sender instead.

It runs on asyncio and uvloop.
"""

from fastsse.asgi.grants import Authorize, Grants
from fastsse.asgi.mounting import Mount, mount
from fastsse.asgi.reading import StreamEvent

__all__ = ["Authorize", "Grants", "Mount", "StreamEvent", "mount"]
