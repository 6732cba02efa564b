"""The sqlite backbone: history in one file, which survives a kill of any process.

Modules, from the ground up: `places` (positions in 63 bits), `errors`, `lock`, `schema` (the
file), `position_lease` (no position twice), `statements`, `topic_rows`, `file` (transactions),
`write_batch`, `inserts`, `retention`, `selection` and `queries` (of one snapshot), `reopening`
(after a disk failed), `checkpoint`, `writer` and `reader` (the threads), `control_store`,
`backbone` (the loop's side).
"""

from fastsse.backbone.sqlite.backbone import Ack, SqliteBackbone
from fastsse.backbone.sqlite.errors import HistoryError

__all__ = ["Ack", "HistoryError", "SqliteBackbone"]
