"""What a token allows, and how its claims are compared."""

import pytest

from fastsse.auth.rights import Rights, claim_hash, is_named

CLAIMS = (5, 10, 20, 100)  # The end, the subject, the token, when it was issued.


@pytest.mark.parametrize(
    ("subject", "token", "issued_before", "named"),
    [
        (0, 0, 0, True),
        (10, 0, 0, True),
        (0, 20, 0, True),
        (10, 20, 101, True),
        (11, 0, 0, False),
        (0, 21, 0, False),
        (11, 20, 101, False),
        (10, 21, 101, False),
        (1, 0, 0, False),
        (0, 1, 0, False),
        (0, 0, 101, True),
        (0, 0, 100, False),
        (0, 0, 1, False),
    ],
)
def test_claims_are_named_by_every_condition_that_is_given(
    subject: int, token: int, issued_before: int, named: bool
) -> None:
    assert is_named(CLAIMS, subject, token, issued_before) is named


def test_a_token_of_unknown_age_counts_as_the_oldest() -> None:
    assert is_named((5, 10, 20, 0), 0, 0, 1)


def test_a_missing_claim_has_no_hash_and_others_differ() -> None:
    assert claim_hash(None) == 0
    assert len({claim_hash("a"), claim_hash("b"), 0}) == 3


def test_a_template_covers_no_reserved_topic() -> None:
    rights = Rights(subscribe=["{any}", "{+all}", "${+rest}"])
    assert rights.covers_subscribe(["news"])
    assert not rights.covers_subscribe(["$x"])
    named = Rights(subscribe=["$x"])
    assert named.covers_subscribe(["$x"])


def test_a_renewal_has_the_end_the_token_and_its_age() -> None:
    rights = Rights(token_id="t", issued_s=7.9, expires_s=2.5)
    assert rights.renewal == (2500, claim_hash("t"), 7)
    assert Rights().renewal == (0, 0, 0)
    assert Rights(expires_s=0).renewal[0] == 1


def test_packed_rights_are_read_as_they_were_but_for_publishing() -> None:
    for role in ("", "read", "act"):
        rights = Rights(["a"], ["b", "c"], {"n": 1}, "me", "t", 3.5, 9.25, role)
        again = Rights.unpack(rights.pack())
        names = [one for one in Rights.__slots__ if not one.startswith("_") and one != "publish"]
        assert [getattr(again, name) for name in names] == [getattr(rights, name) for name in names]
        assert again.publish == ()
