"""Django, whose views are synchronous and whose ASGI application has no lifespan."""

import json

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.asgi.programs.common import counts, mounted

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of a test")
django.setup()


@csrf_exempt
def publish(request: HttpRequest) -> JsonResponse:
    fields = json.loads(request.body)
    topic, data = fields.pop("topic"), fields.pop("data")
    return JsonResponse({"id": app.publish_from_thread(topic, data, **fields)})


def of_the_mount(_: HttpRequest) -> JsonResponse:
    return JsonResponse(counts(app))


urlpatterns = [path("publish", publish), path("counts", of_the_mount)]
app = mounted(get_asgi_application())
