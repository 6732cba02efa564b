"""Configuration: every option once, from flags, environment and file.

`Config` is the whole, validated and frozen; it inherits one group of options for each part of
the server, and each part asks for its own group only.
"""

from fastsse.config.catalogue import Option, catalogue, markdown_table
from fastsse.config.errors import ConfigError, Problem
from fastsse.config.kinds import is_loopback
from fastsse.config.limits import LimitOptions
from fastsse.config.load import Loaded, load
from fastsse.config.options import (
    HistoryOptions,
    HttpOptions,
    ListenOptions,
    LogOptions,
    StreamOptions,
)
from fastsse.config.presence import PresenceOptions
from fastsse.config.processes import ProcessOptions
from fastsse.config.redis import RedisOptions
from fastsse.config.rights import RightsOptions
from fastsse.config.rules import LagPolicy, TopicLimits, TopicRule
from fastsse.config.settings import Config
from fastsse.config.sources import SourceOptions, SourceRule
from fastsse.config.storing import Ack, StoreOptions

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
    "PresenceOptions",
    "Problem",
    "ProcessOptions",
    "RedisOptions",
    "RightsOptions",
    "SourceOptions",
    "SourceRule",
    "StoreOptions",
    "StreamOptions",
    "TopicLimits",
    "TopicRule",
    "catalogue",
    "is_loopback",
    "load",
    "markdown_table",
]
