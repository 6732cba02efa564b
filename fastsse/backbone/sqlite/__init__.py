"""The sqlite backbone: history in one file that survives the kill of any process.

Rooms, from the ground up: `places` (positions in 63 bits), `errors`, `lock`, `schema` (the file),
`lease` (no position twice), `statements`, `topicrows`, `file` (transactions), `batch`, `storing`,
`retention`, `selection` and `reading` (of one snapshot), `reopening` (after a disk failed),
`checkpoint`, `writer` and `reader` (the threads), `control`, `backbone` (the loop's side).
"""

from fastsse.backbone.sqlite.backbone import Ack, SqliteBackbone
from fastsse.backbone.sqlite.errors import HistoryError

__all__ = ["Ack", "HistoryError", "SqliteBackbone"]
