"""`python -m fastsse`: the command line."""

import os
import sys
from importlib.util import find_spec

if __name__ == "__main__":
    if find_spec("fastsse._core") is None:
        # `python -m` takes the current folder first, even a clone that was never built.
        sys.exit(
            f"{os.path.dirname(__file__)} holds fastsse without its native part: build it with "
            "`make serve`, or run the installed command `fastsse`."
        )
    from fastsse.cli import main

    sys.exit(main())
