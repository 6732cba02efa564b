"""`python -m fastsse`: the command line."""

import sys

from fastsse.cli import main

if __name__ == "__main__":
    sys.exit(main())
