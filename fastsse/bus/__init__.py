"""The bus: one hub process orders the events of all workers of a machine.

Workers send publishes to the hub process, and it sends the ordered log to them, in frames over Unix
sockets. The hub process runs `run_hub`. Each worker awaits `connect`, and passes the returned
backbone and control client to its `Hub`:

    # in the hub process, forked before any loop or thread exists
    status = run_hub(config, listening, ready, workers=2, restarted=False)

    # in a worker, inside its loop
    backbone, control = await connect(address, worker=0, key=os.urandom(8))

- `listening` is a Unix stream socket that is bound and listens. The parent process keeps
  it open over a hub's death: workers that reconnect meanwhile wait in its queue and are not
  refused. `address` is what it is bound to; an abstract name (`\\0…`) will do. Only processes of
  the same user are served.
- `ready(hub)` is called once, in the hub's loop, when workers are served.
- `workers` is how many workers there are, `restarted` whether they had a hub before. A restarted
  hub whose store is `memory` waits for that many (a second at most) and continues their log; it
  receives their history while it serves. In the same way a worker that starts receives the history
  while it serves: `backbone.is_whole` says whether it is complete.
- `key` is a worker process's own, 8 random bytes: never used by another one.
- `run_hub` returns the process's exit status after SIGTERM. Stop the workers first.
- A worker that the hub rejected (it could not keep up, or has events that the hub never had) is
  notified: `backbone.ended` is a future with the reason. The worker must end, and may be started
  again.
- While there is no hub `backbone.trouble` says so. Streams stay open, publishers wait for at most
  2 s, and are then refused.
"""

from fastsse.bus.client.backbone import BusBackbone
from fastsse.bus.client.connect import connect
from fastsse.bus.client.connection import BusError
from fastsse.bus.client.control import BusControlClient
from fastsse.bus.server.process import HubProcess, run_hub

__all__ = ["BusBackbone", "BusControlClient", "BusError", "HubProcess", "connect", "run_hub"]
