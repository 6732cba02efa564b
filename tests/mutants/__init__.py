"""Mutation tests: `make mutants`, or `python -m tests.mutants fastsse/auth/claims.py tests/auth`.

Changes one thing of a module at a time (a comparison, a constant, a condition, a statement), runs
the tests that reach it, and lists the changes that no test noticed. Nothing is written to a file.
`modules.toml` says which modules are tried with which tests, and which changes can't be noticed.
"""
