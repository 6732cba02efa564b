"""The benchmark of waiting polls runs: small, its figures mean nothing."""

from bench.waiters import run


def test_all_polls_wait_at_once_and_one_publish_answers_them() -> None:
    found = run(50, 2, 20)
    assert (found["answered"], found["not answered"]) == (50, 0)
    assert found["bytes a waiting poll"] > 0
    assert found["CPU µs of the server to take one"] >= 0
