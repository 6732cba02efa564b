"""`python -m bench.peers.django_eventstream_asgi.server uvicorn|daphne`: the view of
django-eventstream, and one that sends.

Channels are given to the view as its README shows it for one that is chosen by the project.
"""

from __future__ import annotations

import sys
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

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


def main() -> None:
    """Serves on a free port until SIGTERM."""
    application = get_asgi_application()
    if sys.argv[1] == "uvicorn":
        from bench.peers.uvicorn_settings import serve

        serve(application)
        return
    from daphne.server import Server

    from bench.peers.topics import listen

    with listen() as listener:
        # Daphne gives an answer that is not complete after the timeout up; a stream never is.
        Server(
            application,
            endpoints=[f"fd:fileno={listener.fileno()}"],
            http_timeout=None,
            server_name="",
        ).run()


if __name__ == "__main__":
    main()
