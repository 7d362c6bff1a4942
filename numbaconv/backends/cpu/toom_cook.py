"""The matrices of minimal filtering algorithms (Winograd 1980; Lavin and Gray 2016, section 4).

``F(m, r)`` computes ``m`` outputs of a filter of ``r`` taps with ``n = m + r - 1`` products instead of ``m * r``::

    y = A^T [ (G g) * (B^T d) ]        d: n inputs, g: r taps, y: m outputs

They follow from polynomial interpolation at ``n - 1`` points and infinity (Toom and Cook), transposed. Only their
entries decide how errors grow; points of equal size and opposite sign let `linear_tile` share sums.
"""

from functools import lru_cache
from math import prod

import numpy as np

from ...arrays import Array

__all__ = ["matrices"]

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
