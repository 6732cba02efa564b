"""The one line that says what is wrong with a configuration."""

import pytest

from fastsse.config import Config, ConfigError


def problem(**options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Config(**options)
    text = str(caught.value)
    assert "\n" not in text
    return text
