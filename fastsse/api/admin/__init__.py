"""`/admin`: what operators ask and do. Every path needs a console role on whatever listener."""

from fastsse.api.admin.access import ConsoleAccess
from fastsse.api.admin.busiest import BusiestTopics
from fastsse.api.admin.live import LiveStats
from fastsse.api.admin.routes import Admin
from fastsse.api.admin.tokens import TokenAdmin

__all__ = ["Admin", "BusiestTopics", "ConsoleAccess", "LiveStats", "TokenAdmin"]
