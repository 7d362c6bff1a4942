"""The matrices of minimal filtering algorithms (Winograd 1980; Lavin and Gray 2016, section 4).

``F(m, r)`` computes ``m`` outputs of a filter of ``r`` taps with ``n = m + r - 1`` products instead of ``m * r``::

    y = A^T [ (G g) * (B^T d) ]        d: n inputs, g: r taps, y: m outputs

They follow from polynomial interpolation at ``n - 1`` points and infinity (Toom and Cook), transposed. Only their
entries decide how errors grow; points of equal size and opposite sign let transforms share sums.

Error factor of an algorithm that filters so along two axes: transforms, products and sums are sums of products; each
rounding is amplified by at most the entries of the three matrices together. With ``a = max over outputs i and taps k of
sum over f of |A^T[i, f]| |G[f, k]| sum over j of |B^T[f, j]|`` for each axis, an output's error is at most the product
of both times ``n + 40`` roundings of ``max|x| * sum|w|``, where n is the number of transformed products summed (Higham
2002, section 3.1, for the sums; 40 bounds the additions and multiplications of all three transforms of both axes). It
spreads over the neighbourhood: an element may be off by roundings of its neighbours, and NaN or infinity in the input
reach a whole tile.
"""

from functools import lru_cache
from math import prod

import numpy as np

from ..arrays import Array

__all__ = ["error_factor", "matrices"]

#: Interpolation points by the number of products; infinity is the last. Against the usual 0, 1, -1, 2, -2 these have
#: a quarter of the largest error and 0.42 of the mean square one (64 channels, random operands); the square roots of
#: 1/2 and 2 do as well, but their matrices are not exact.
_POINTS = {
    4: (0.0, 1.0, -1.0),
    6: (0.0, 0.625, -0.625, 1.5, -1.5),
}


def _without(points: tuple[float, ...], one: int) -> tuple[float, ...]:
    return points[:one] + points[one + 1 :]


@lru_cache(maxsize=16)
def matrices(outputs: int, taps: int) -> tuple[Array, Array, Array]:
    """``(A^T, G, B^T)`` of ``F(outputs, taps)``, of shapes (m, n), (n, r) and (n, n), in float64."""
    products = outputs + taps - 1
    if products == 1:
        one = np.ones((1, 1))
        return one, one, one
    points = _POINTS[products]
    # numpy.poly: coefficients of the polynomial with these roots, highest power first.
    data = [np.append(np.poly(_without(points, j))[::-1], 0.0) for j in range(products - 1)]
    data.append(np.poly(points)[::-1])
    norms = [prod(points[j] - other for other in _without(points, j)) for j in range(products - 1)]
    weight = [[point**k / norm for k in range(taps)] for point, norm in zip(points, norms, strict=True)]
    weight.append([0.0] * (taps - 1) + [1.0])
    output = [[point**i for point in points] + [float(i == outputs - 1)] for i in range(outputs)]
    return np.array(output), np.array(weight), np.array(data)


def _amplification(outputs: int, taps: int) -> float:
    """How much the three matrices of a filtering can amplify a rounding."""
    output, weight, data = (np.abs(matrix) for matrix in matrices(outputs, taps))
    return float(np.max(np.einsum("if,fk,fj->ik", output, weight, data)))


def error_factor(down: tuple[int, int], across: tuple[int, int], terms: int) -> float:
    """Of filterings of (outputs, taps) along two axes, and so many products summed between the transforms."""
    return _amplification(*down) * _amplification(*across) * (terms + 40)
