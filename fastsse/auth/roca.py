"""Detects RSA keys with the ROCA weakness (CVE-2017-15361): their private key can be computed.

A library for smart cards made primes as `k * M + (65537 ** a mod M)`, where M is the product of the
first primes (Nemec and others, "The Return of Coppersmith's Attack", ACM CCS 2017). Modulo M, such
a modulus is a power of 65537. Other moduli practically never are.
"""

from math import gcd
from typing import Final

__all__ = ["has_roca_weakness"]

_GENERATOR: Final = 65537
# The odd ones of the first 39 primes. They divide the M of every key length. A modulus of another
# origin is reported with a probability below 2 ** -150.
_PRIMES: Final = tuple(
    number for number in range(3, 168, 2) if all(number % d for d in range(3, number, 2))
)


def _powers(prime: int) -> dict[int, int]:
    """The exponent of each power of the generator modulo a prime."""
    exponents: dict[int, int] = {}
    power = 1
    while power not in exponents:
        exponents[power] = len(exponents)
        power = power * _GENERATOR % prime
    return exponents


_EXPONENTS: Final = {prime: _powers(prime) for prime in _PRIMES}


def has_roca_weakness(modulus: int) -> bool:
    """Whether one exponent x satisfies `modulus = 65537 ** x` modulo all of the primes.

    O(bits): at most about forty divisions by small numbers. It stops at the first prime that
    excludes the weakness.
    """
    x, period = 0, 1
    for prime in _PRIMES:
        exponents = _EXPONENTS[prime]
        exponent = exponents.get(modulus % prime)
        if exponent is None:
            return False
        order = len(exponents)
        shared = gcd(period, order)
        if (exponent - x) % shared:
            return False
        # The Chinese remainder theorem, for periods that are not coprime.
        step = order // shared
        inverse = pow(period // shared, -1, step)
        x += (exponent - x) // shared * inverse % step * period
        period *= step
    return True
