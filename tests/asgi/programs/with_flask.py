"""Flask, by way of asgiref: a WSGI application, which has no lifespan and no scope."""

from typing import Any

from asgiref.wsgi import WsgiToAsgi
from flask import Flask, request

from tests.asgi.programs.common import counts, mounted

web = Flask(__name__)


@web.post("/publish")
def publish() -> dict[str, str]:
    fields: dict[str, Any] = request.get_json()
    topic, data = fields.pop("topic"), fields.pop("data")
    return {"id": app.publish_from_thread(topic, data, **fields)}


@web.get("/counts")
def of_the_mount() -> dict[str, Any]:
    return counts(app)


app = mounted(WsgiToAsgi(web))
