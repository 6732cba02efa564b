"""The Django application."""

from django.apps import AppConfig


class FastsseConfig(AppConfig):
    """Template tags and the command `fastsse`."""

    name = "fastsse.contrib.django"
    label = "fastsse"
    verbose_name = "fastsse"
