"""The conformance suite: its checks against a toy that breaks them, and fastsse against it."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "conformance"
# The suite is a package of its own, which is not installed with fastsse.
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))
