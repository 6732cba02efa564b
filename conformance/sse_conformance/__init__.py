"""A black-box conformance suite for Server-Sent-Events hubs."""

__version__ = "0.1.0"
