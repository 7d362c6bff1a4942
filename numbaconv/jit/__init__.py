"""Convolutions inside your own ``@njit`` functions.

Importing this module makes the functions that it lists known to Numba. They are `numbaconv.functional`'s and
`numbaconv.grad`'s themselves, so ``numbaconv.conv2d`` and ``numbaconv.grad.conv2d_input`` are meant, too.

>>> import numpy as np
>>> from numba import njit
>>> from numbaconv.jit import conv2d, conv2d_input
>>> @njit
... def descend(x, w, steps):
...     for _ in range(steps):
...         y = conv2d(x, w, padding="same", activation="tanh")
...         x = x - np.float32(0.1) * conv2d_input(x.shape, w, y, padding="same", activation="tanh", output=y)
...     return x
>>> descend(np.ones((1, 2, 8, 8), np.float32), np.full((2, 2, 3, 3), 0.1, np.float32), 3).shape
(1, 2, 8, 8)

Arguments go by position or by keyword and mean what they mean outside; ``stream`` is left out, since arrays on a device
do not reach compiled code. Plan, algorithm and kernel are the same, and so are the bits. Arrays may have any strides
and be read-only; their dtypes are those that both Numba and this package have. Further:

- Integers, tuples of them and strings may be variables. ``output_mask`` of the ``..._backward`` functions decides which
  parts of the result are None, so its three bools are written in the call.
- ``dtype`` decides the result's type, too: it is a scalar type such as ``np.float64``, an array's ``dtype``, or a name
  that is written in the call.
- An activation is a name, or a function that is itself compiled by ``njit``; gradients take a pair of those. Numba does
  not cache on disk what passes functions on, and warns of pairs of them as experimental.
- What is wrong by its type is a ``TypingError`` when the function is compiled, which names the argument. What is wrong
  by its value is raised when it runs, with the type and message that it has outside; a ``try`` of the compiled function
  catches it.
- ``cache=True``, ``nogil=True`` and ``parallel=True`` work as ever.

A call takes the GIL for what Python does, some microseconds, and gives it back while kernels run: compiled functions
that run side by side, in threads or in a ``prange``, convolve side by side but take turns in between. A convolution
inside a ``prange`` runs in the thread that calls it, or in several where the threading layer can nest. One call for a
batch is faster than a ``prange`` over its samples. End daemon threads that run such loops before the process ends: what
waits for the GIL in one of Numba's threads then may abort it.

Numba itself drops exceptions that leave the body of a ``prange``. Those of convolutions are raised by the function that
has the loop, if the main thread called it and Python has no other thread; where it has, they are reported through
``threading.excepthook``. Under the threading layer tbb, or in another thread, what fails in the calling thread's own
share of the loop becomes a SystemError of Numba's, with the error as its ``__cause__``.

Numba never releases the arrays that a compiled function holds when an exception leaves it, whoever raised it. A ``try``
in the function that calls the convolution keeps nothing.

Before Python 3.12 Numba mixes up the keywords of any call inside a ``try``: write arguments by position there.
"""

from ..functional import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from ..grad import (
    conv1d_backward,
    conv1d_bias,
    conv1d_input,
    conv1d_weight,
    conv2d_backward,
    conv2d_bias,
    conv2d_input,
    conv2d_weight,
    conv3d_backward,
    conv3d_bias,
    conv3d_input,
    conv3d_weight,
    conv_transpose1d_backward,
    conv_transpose1d_bias,
    conv_transpose1d_input,
    conv_transpose1d_weight,
    conv_transpose2d_backward,
    conv_transpose2d_bias,
    conv_transpose2d_input,
    conv_transpose2d_weight,
    conv_transpose3d_backward,
    conv_transpose3d_bias,
    conv_transpose3d_input,
    conv_transpose3d_weight,
)
from .overloads import register

__all__ = [
    "conv1d",
    "conv1d_backward",
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
    "conv2d",
    "conv2d_backward",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "conv3d",
    "conv3d_backward",
    "conv3d_bias",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose1d_bias",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose2d_bias",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "conv_transpose3d_bias",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
]

for _name in __all__:
    register(globals()[_name])
