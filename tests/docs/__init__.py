"""The documentation says what is true: every block of code in it that can run is run.

`docs/writing.md` says how blocks are marked.
"""
