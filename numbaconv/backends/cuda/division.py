"""Division by what is the same for a whole launch: a multiplication and a shift."""

import numpy as np

from .intrinsics import inlined

__all__ = ["divided", "divisor", "inverse", "remainder"]


def inverse(extent: int) -> tuple[int, int]:
    """A multiplier and a shift by which a number below 2**31 is divided by an extent.

    With ``2**(s - 1) < extent <= 2**s`` the multiplier is off by less than 1, so a quotient by less than
    ``2**31 / (2**31 * 2**s)``, which does not reach the next integer (Granlund and Montgomery 1994).
    """
    shift = 31 + (extent - 1).bit_length()
    return -(-(1 << shift) // extent), shift


def divisor(extent: int) -> list[int]:
    """What a table holds of an extent that `remainder` divides by."""
    return [extent, *inverse(max(extent, 1))]


@inlined
def divided(value, multiplier, shift):
    """The quotient, in kernels."""
    return np.uint32((np.uint64(value) * np.uint64(multiplier)) >> np.uint64(shift))


@inlined
def remainder(value, table, at):
    """In kernels, a quotient and what is left, by the `divisor` at a place of the table."""
    quotient = divided(value, np.uint32(table[at + 1]), table[at + 2])
    return quotient, np.uint32(value - np.uint32(quotient * np.uint32(table[at])))
