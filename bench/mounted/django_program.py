"""`python -m bench.mounted.django_program`: the view of django-eventstream, and one that sends.

Channels are given to the view as its README shows it for one that is chosen by the project.
"""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from bench.peers.uvicorn_settings import serve

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a benchmark",
    INSTALLED_APPS=["django_eventstream"],
    MIDDLEWARE=[],
    LOGGING_CONFIG=None,
)
django.setup()

from django_eventstream import send_event  # noqa: E402
from django_eventstream.views import events  # noqa: E402


async def stream(request: HttpRequest) -> Any:
    """Publishes, or opens a stream."""
    topic = request.GET["topic"]
    if request.method == "POST":
        data = request.body.decode()
        send_event(topic, "message", data, async_publish=False, json_encode=False)
        return HttpResponse(status=204)
    return events(request, channels=[topic])


urlpatterns = [path("events", stream)]

if __name__ == "__main__":
    serve(get_asgi_application())
