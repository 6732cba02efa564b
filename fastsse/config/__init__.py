"""Configuration: declares every option once, and reads flags, environment and file.

`Config` has all options, validated and frozen. It inherits one group of options for each part of
the server, and each part uses only its own group.
"""

from fastsse.config.catalogue import Option, catalogue, markdown_table
from fastsse.config.errors import ConfigError, OptionProblem
from fastsse.config.kinds import is_loopback
from fastsse.config.load import Loaded, load
from fastsse.config.options import (
    HistoryOptions,
    HttpOptions,
    LimitOptions,
    ListenOptions,
    LogOptions,
    PresenceOptions,
    ProcessOptions,
    StreamOptions,
)
from fastsse.config.rules import LagPolicy, TopicLimits, TopicRule
from fastsse.config.settings import Config
from fastsse.config.sources import SourceOptions, SourceRule
from fastsse.config.store import Ack, RedisOptions, StoreOptions
from fastsse.config.tls import TlsOptions
from fastsse.config.tokens import TokenOptions

__all__ = [
    "Ack",
    "Config",
    "ConfigError",
    "HistoryOptions",
    "HttpOptions",
    "LagPolicy",
    "LimitOptions",
    "ListenOptions",
    "Loaded",
    "LogOptions",
    "Option",
    "OptionProblem",
    "PresenceOptions",
    "ProcessOptions",
    "RedisOptions",
    "SourceOptions",
    "SourceRule",
    "StoreOptions",
    "StreamOptions",
    "TlsOptions",
    "TokenOptions",
    "TopicLimits",
    "TopicRule",
    "catalogue",
    "is_loopback",
    "load",
    "markdown_table",
]
