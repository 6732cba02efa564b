"""The churn test: rounds of streams that come and go, and a verdict on memory."""

from click.testing import CliRunner

from loadtests.churn import growth_bytes, main


def test_growth_is_judged_between_the_third_and_the_last_quarter() -> None:
    assert growth_bytes([100, 200, 300, 400, 500, 500, 500, 500]) == 0
    assert growth_bytes([100, 200, 300, 400, 500, 600, 700, 800]) == 100


def test_rounds_of_new_topics_are_opened_published_to_and_dropped() -> None:
    options = ["--rounds", "4", "--topics", "40", "--workers", "1", "--allowed", "1000000"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    assert result.output.count("round ") >= 4
    assert "a round" in result.output.splitlines()[-1]
