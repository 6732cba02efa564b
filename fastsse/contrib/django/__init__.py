"""Django: publish after the commit, and a ticketed address for pages.

settings.py:

    INSTALLED_APPS = [..., "fastsse.contrib.django"]
    FASTSSE = {"URL": "http://127.0.0.1:8080", "JWT_KEY": os.environ["FASTSSE_JWT_KEY"]}

A view or model:

    from fastsse.contrib.django import publish

    publish("user/7", {"order": 17}, event="order", private=True)

A template:

    {% load fastsse %}
    <script>new EventSource("{% fastsse_url 'user/7' %}")</script>

The settings `FASTSSE` and what they mean are in `conf`.
"""

from fastsse.contrib.django.publishing import client, publish
from fastsse.contrib.django.tokens import stream_url, user_token

__all__ = ["client", "publish", "stream_url", "user_token"]
