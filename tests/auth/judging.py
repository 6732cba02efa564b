"""What a verifier says of a token."""

from collections.abc import Callable
from typing import Any

import pytest

from fastsse.auth.rights import Rights
from fastsse.errors import Unauthorised
from tests.auth.conftest import verifier_of
from tests.auth.minting import SECRET

Verify = Callable[[bytes], Rights]
SHARED = verifier_of(jwt_key=SECRET)


def refused(raw: bytes, says: str = "", **options: Any) -> str:
    verifier = verifier_of(**options) if options else SHARED
    with pytest.raises(Unauthorised) as caught:
        verifier.verify(raw, "subscribe")
    text = str(caught.value)
    assert says in text
    assert SECRET not in text
    assert not raw or raw.decode("latin-1") not in text
    return text


def judged(raw: bytes) -> Rights | str:
    """The rights, or why not."""
    try:
        return SHARED.verify(raw, "subscribe")
    except Unauthorised as error:
        text = str(error)
    assert text.isprintable()
    return text
