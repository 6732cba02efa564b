"""The configuration that running children take over: a file without a name that all of them have.

The supervisor writes it, and tells the children by a packet of their link, which is short.
"""

import os
import pickle
from typing import Final

from fastsse.config import Config

__all__ = ["ConfigBoard"]


class ConfigBoard:
    """One configuration at a time. Make it before the first fork."""

    def __init__(self) -> None:
        self._fd: Final = os.memfd_create("fastsse-config", os.MFD_CLOEXEC)

    def post(self, config: Config) -> None:
        """Has `read` return this configuration. No child may be reading."""
        data = pickle.dumps(config)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

    def read(self) -> Config:
        """What was posted last. In any process of the family, which alone can write it."""
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        config = pickle.loads(data)  # nosec B301: the file has no name, and only the family has it
        assert isinstance(config, Config)
        return config

    def close(self) -> None:
        """Closes this process's copy of the descriptor."""
        os.close(self._fd)
