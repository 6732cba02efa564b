"""The schema of configuration files accepts every file of the documentation, and no wrong one."""

import tomllib

import pytest
from jsonschema import Draft202012Validator, ValidationError

from fastsse.config.filetext import commented_file, schema
from tests.docs.blocks import ROOT

VALIDATOR = Draft202012Validator(schema())


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_it_accepts_what_init_writes_and_the_file_of_deploy() -> None:
    VALIDATOR.validate(tomllib.loads(commented_file()))
    VALIDATOR.validate(tomllib.loads((ROOT / "deploy" / "fastsse.toml").read_text()))


@pytest.mark.parametrize(
    "text",
    [
        'port = 9000\nhost = ["127.0.0.1", "::1"]\nmax_lag = "8MiB"\nworkers = "auto"',
        'workers = 4\nretry = 2.5\nmax_lag = 65536\ncors_origins = "https://example.com"',
        '[[topics]]\nmatch = "stocks/*"\nlag_policy = "latest"\nhistory_age = "1h"',
        '[[sources]]\nname = "a"\nchannels = ["x.*"]\ntopic = "{1}"',
    ],
)
def test_it_accepts_valid_files(text: str) -> None:
    VALIDATOR.validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "prot = 1",
        "port = 65536",
        "port = true",
        'retry = "soon"',
        "retry = 4000",
        'lag_policy = "drop"',
        'anonymous = "yes"',
        '[[topics]]\nmatches = "a"',
        "[topics]",
    ],
)
def test_it_rejects_wrong_ones(text: str) -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate(tomllib.loads(text))
