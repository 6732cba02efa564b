"""A supervisor whose children do next to nothing, as a program: what it does is on its output.

Each child writes a line when it starts, when it gets the order to drain and when it ends:
`start 0 3 4711`, `ordered 0 3 drain`, `end 0 3 drain` (slot, number, process or order). The
environment says what goes wrong: FAIL_AT_START=slot, FAIL_FROM=number (no child from this number
on can start), DIE_SOON=slot (all but its first), SLOW=seconds (to drain), BAD=path (a reload is
refused while there is such a file), HUNG=seconds (of silence after which a child is killed),
POSTS=yes (a reload has something that children take over, and replaces none), DIES=slot (its first
child ends when it is to take something over).
"""

import os
import select
import signal
import sys
import time
from collections.abc import Sequence

from fastsse.config import Config
from fastsse.errors import FastsseError
from fastsse.log import configure
from fastsse.supervisor import family
from fastsse.supervisor import supervisor as supervisor_module
from fastsse.supervisor.family import Plan
from fastsse.supervisor.forking import Closable
from fastsse.supervisor.notify import Notifier
from fastsse.supervisor.pidfile import PidFile
from fastsse.supervisor.process_link import ALIVE, APPLIED, APPLY, FAILED, READY, ProcessLink
from fastsse.supervisor.reloadsocket import ReloadSocket
from fastsse.supervisor.supervisor import StartError, Supervisor


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class LittleCrew:
    window_s = 0.2

    def __init__(self) -> None:
        self.closable: Sequence[Closable] = ()

    def serve(self, slot: int, number: int, link: ProcessLink) -> int:
        if os.environ.get("FAIL_AT_START") == str(slot) or number >= int(
            os.environ.get("FAIL_FROM", "1000")
        ):
            link.send(FAILED, "7 it does not want to")
            return 7
        # Before it is ready: the supervisor may be killed at once, and then SIGTERM comes.
        if slot == -1:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say("start", slot, number, os.getpid())
        link.send(READY)
        link.send(ALIVE, "5")
        if os.environ.get("DIE_SOON") == str(slot) and number >= 2:
            return 3
        if slot == -1:
            signal.sigwait([signal.SIGTERM])
            say("end", slot, number, "term")
            return 0
        while True:
            select.select([link], [], [])
            packet = link.receive()
            if packet is not None and packet.word == APPLY:
                if os.environ.get("DIES") == str(slot) and number < 3:
                    return 4
                say("applied", slot, number)
                link.send(APPLIED)
            elif packet is not None or not link.is_open:
                word = packet.word if packet else "orphan"
                if word != "end":
                    say("ordered", slot, number, word)
                    time.sleep(float(os.environ.get("SLOW", "0")))
                say("end", slot, number, word)
                return 0

    def on_serving(self) -> None:
        say("serving", os.getpid())

    def reload(self) -> Plan:
        if os.path.exists(os.environ.get("BAD", "/nonexistent")):
            raise FastsseError("port = no must be a number.")
        if os.environ.get("POSTS"):
            return Plan("", is_posted=True, replaces=False)
        return Plan("port needs a restart.")

    def revert(self) -> bool:
        say("reverted")
        return False

    def left_by_child(self) -> Sequence[Closable]:
        return self.closable


def main() -> int:
    configure(Config(log_format="json"))
    if "HUNG" in os.environ:
        family.HUNG_S = supervisor_module.STATUS_EVERY_S = float(os.environ["HUNG"])
    crew = LittleCrew()
    notifier = Notifier()
    supervisor = Supervisor(crew, int(sys.argv[1]), with_hub="hub" in sys.argv, notifier=notifier)
    supervisor.reloaded = lambda outcome: say("reloaded", outcome.is_done, outcome.text)
    if os.environ.get("PIDFILE"):
        pidfile = PidFile(os.environ["PIDFILE"])
        control = ReloadSocket(
            pidfile, supervisor.watch, supervisor.unwatch, supervisor.begin_reload
        )
        supervisor.reloaded = control.answer
        crew.closable = control.descriptors
    try:
        return supervisor.run()
    except StartError as error:
        say("failed", error.exit_status, error)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
