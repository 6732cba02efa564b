"""What a machine, or a path through a proxy, needs for very many event streams.

`examine(read_machine(), Goal(connections=100_000))` is a diagnosis without side effects. The
figures it computes with were measured by us and are kept in one place, `figures`.
"""

from fastsse.doctor.diagnosis import Diagnosis, examine
from fastsse.doctor.finding import Finding, Verdict
from fastsse.doctor.goal import Goal
from fastsse.doctor.machine import Machine, read_machine
from fastsse.roots import Roots

__all__ = ["Diagnosis", "Finding", "Goal", "Machine", "Roots", "Verdict", "examine", "read_machine"]
