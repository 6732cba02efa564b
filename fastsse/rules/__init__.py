"""Rules: what happens to events that match, and alerts about how many do."""

from fastsse.rules.alerts import Alerts
from fastsse.rules.channels import EventRules

__all__ = ["Alerts", "EventRules"]
