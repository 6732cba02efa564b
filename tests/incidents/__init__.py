"""Incidents played for real, each seen as an operator sees it: by an alert of `deploy/alerts.yml`,
in the console, through `fastsse why`, and in the docs.

`python -m tests.incidents` plays all and writes a table; a name plays one. `scene` is what an
operator has, `plays` and `faults` are the incidents.
"""
