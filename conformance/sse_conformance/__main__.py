"""`python -m sse_conformance` is the command `sse-conformance`."""

from sse_conformance.cli import main

main()
