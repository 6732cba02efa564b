"""A fresh token for an open stream: may it take the place of the one that opened it?"""

from fastsse.auth.rights import ANY, Rights, claim_hash
from fastsse.errors import Forbidden

__all__ = ["check_renewal"]


def check_renewal(subscribe: tuple[str, ...], subject_hash: int, fresh: Rights) -> None:
    """Raises Forbidden unless `fresh` is of the same subject and covers all that was granted.

    `subscribe` are the grants that the stream was opened with (its channel goes on with them, so
    the fresh token must hold each), `subject_hash` the second of its `Rights.claims`.
    """
    if claim_hash(fresh.subject) != subject_hash:
        raise Forbidden("The fresh token is another subject's (sub) than the stream's.")
    if ANY not in fresh.subscribe and not set(subscribe) <= set(fresh.subscribe):
        raise Forbidden("The fresh token's mercure.subscribe lacks some of the stream's selectors.")
