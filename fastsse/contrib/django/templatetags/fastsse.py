"""`{% load fastsse %}`."""

from django import template
from django.template import Context

from fastsse.contrib.django.tokens import stream_url, user_token

register = template.Library()


@register.simple_tag(takes_context=True)
def fastsse_url(context: Context, *topics: str) -> str:
    """The address of the user's stream, with a ticket: `{% fastsse_url 'a' 'b' %}`.

    Needs the request in the context. The page must not be cached."""
    return stream_url(context["request"].user, topics)


@register.simple_tag(takes_context=True)
def fastsse_token(context: Context) -> str:
    """A token of the user, for a page that reads its streams with `fetch`."""
    return user_token(context["request"].user)
