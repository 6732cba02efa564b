"""Moduli with the ROCA weakness are found by what they are modulo small primes."""

from math import prod
from random import Random

import pytest

from fastsse.auth.roca import _PRIMES, has_roca_weakness

_M = prod(_PRIMES)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 6, 9, 10_001, 65_537**3])
@pytest.mark.parametrize("multiple", [0, 1, 2**900])
def test_every_power_of_the_generator_is_found(exponent: int, multiple: int) -> None:
    assert has_roca_weakness(pow(65_537, exponent, _M) + multiple * _M)


def test_one_other_prime_is_enough_to_be_sound() -> None:
    weak = pow(65_537, 12_345, _M)
    # As before modulo all primes but one.
    changed = [weak + _M // prime * step for prime in _PRIMES for step in range(1, prime)]
    found = [modulus for modulus in changed if has_roca_weakness(modulus)]
    assert len(found) < len(changed) / 10
    assert not has_roca_weakness(0)


def test_other_odd_numbers_are_sound() -> None:
    random = Random(7)
    assert not any(has_roca_weakness(random.getrandbits(2048) | 1) for _ in range(2000))
