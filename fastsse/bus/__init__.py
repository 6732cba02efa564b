"""The bus: one hub process orders the events of all workers of a machine.

Publishes go up, the ordered log comes down, over a Unix socket, in frames. The hub process runs
`run_hub`; each worker awaits `connect` and gives what it returns to its `Hub` as any backbone and
control:

    # in the hub process, forked before any loop or thread exists
    status = run_hub(config, listening, ready, workers=2, restarted=False)

    # in a worker, inside its loop
    backbone, control = await connect(address, worker=0, key=os.urandom(8))

- `listening` is a Unix stream socket that is bound and listens. The parent process keeps
  it open over a hub's death: workers that reconnect meanwhile wait in its queue and are not
  refused. `address` is what it is bound to; an abstract name (`\\0…`) will do. Only processes of
  the same user are served.
- `ready()` is called once, in the hub's loop, when workers are served.
- `workers` is how many workers there are, `restarted` whether they had a hub before. A restarted
  hub whose store is `memory` waits for that many (a second at most) and goes on from what they
  have; what they keep follows while it serves. Likewise a worker that starts is handed what is kept
  while it serves: `backbone.is_whole` says whether all is there.
- `key` is a worker process's own, 8 random bytes: never used by another one.
- `run_hub` returns the process's exit status after SIGTERM. Stop the workers first.
- A worker that the hub gave up (it could not keep up, or has what the hub never had) is notified:
  `backbone.ended` is a future with the reason; the worker must end, and may be started again.
- While there is no hub `backbone.trouble` says so. Streams stay open, publishers wait for at most
  2 s, and are then refused.
"""

from fastsse.bus.client.backbone import BusBackbone
from fastsse.bus.client.connect import connect
from fastsse.bus.client.connection import BusError
from fastsse.bus.client.control import BusControlClient
from fastsse.bus.server.process import run_hub

__all__ = ["BusBackbone", "BusControlClient", "BusError", "connect", "run_hub"]
