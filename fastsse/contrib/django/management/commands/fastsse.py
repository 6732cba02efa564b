"""`manage.py fastsse`: publish and listen with the settings of the project."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fastsse.client import ClientError
from fastsse.contrib.django.publishing import client


class Command(BaseCommand):
    """Publishes one event, or shows the events of topics."""

    help = "Publish an event, or show the events of topics, with the settings FASTSSE."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The two subcommands."""
        commands = parser.add_subparsers(dest="command", required=True)
        publish = commands.add_parser("publish", help="Publish one event.")
        publish.add_argument("topic")
        publish.add_argument("data")
        publish.add_argument("--event", help="Its type.")
        publish.add_argument("--private", action="store_true", help="Needs a grant to read.")
        listen = commands.add_parser("listen", help="Show the events of topics.")
        listen.add_argument("topic", nargs="+")
        listen.add_argument("--count", type=int, help="End after so many events.")
        listen.add_argument("--last", type=int, help="Begin with so many of the newest.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs one."""
        try:
            if options["command"] == "publish":
                self._publish(options)
            else:
                self._listen(options)
        except ClientError as error:
            raise CommandError(str(error)) from None

    def _publish(self, options: dict[str, Any]) -> None:
        receipt = client().publish(
            options["topic"],
            options["data"],
            event=options["event"],
            private=options["private"],
        )
        self.stdout.write(receipt.id)

    def _listen(self, options: dict[str, Any]) -> None:
        left = options["count"]
        with client().subscribe(options["topic"], last=options["last"]) as events:
            for event in events:
                self.stdout.write(f"{event.id} {event.event} {event.data}")
                left = None if left is None else left - 1
                if left == 0:
                    return
