"""Rules: drop, move or copy matching events, and publish alerts when many match."""

from fastsse.rules.alerts import Alerts
from fastsse.rules.channels import EventRules

__all__ = ["Alerts", "EventRules"]
