"""The intrinsics' fallbacks in Numba's simulator: a program that prints, as JSON, how much it compared, and errors."""

import json
import os

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

import intrinsic_kernels as kernels
import ml_dtypes
import numpy as np
from turns import take_turns

from numbaconv.backends.cuda.intrinsics import float_of_word, round_tf32

take_turns()
found = {"compared": 0, "wrong": []}
rng = np.random.default_rng(9)


def note(right, label):
    """Count a comparison."""
    found["compared"] += 1
    if not right:
        found["wrong"].append(label)


def rounded(value):
    """What a register holds after rounding."""
    return float_of_word(round_tf32(value))


def tf32(values):
    """The nearest values of ten bits, ties away from zero, by arithmetic on fractions."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    scaled = fraction * 2**11
    return np.ldexp(np.sign(scaled) * np.floor(np.abs(scaled) + 0.5) / 2**11, exponent).astype(np.float32)


def check_products():
    """Matrices whose products are exact in float32, however they are added."""
    for kernel, dtype, depth in (
        (kernels.product_tf32, np.float32, 8),
        (kernels.product_f16, np.float16, 16),
        (kernels.product_bf16, ml_dtypes.bfloat16, 16),
    ):
        a, b = rng.integers(-9, 10, (16, depth)).astype(dtype), rng.integers(-9, 10, (depth, 8)).astype(dtype)
        c = rng.integers(-99, 100, (16, 8)).astype(np.float32)
        wanted = c + a.astype(np.float32) @ b.astype(np.float32)
        out = c.copy()
        if depth == 8:
            kernel[1, 32](a.ravel(), b.ravel(), out.reshape(-1))
        else:
            pairs = [np.ascontiguousarray(each).view(np.uint32).ravel() for each in (a, b.T)]
            kernel[1, 32](*pairs, out.reshape(-1))
        note(np.array_equal(out, wanted), str(np.dtype(dtype)))


def check_operands_are_truncated():
    """Of tf32's operands ten bits count, so rounding is the caller's."""
    a = np.zeros((16, 8), np.float32)
    a[3, 5] = np.float32(1 + 2**-11)
    b, out = np.eye(8, dtype=np.float32), np.zeros((16, 8), np.float32)
    kernels.product_tf32[1, 32](a.ravel(), b.ravel(), out.reshape(-1))
    note(out[3, 5] == np.float32(1 + 2**-10) and np.count_nonzero(out) == 1, "rounded operands")


def check_rounding():
    """tf32 against arithmetic; infinities, the largest value, NaN."""
    values = np.concatenate([rng.standard_normal(500), 1 + np.arange(64) / 2**12, -1 - np.arange(64) / 2**12])
    values = values.astype(np.float32)
    note(np.array_equal([rounded(v) for v in values], tf32(values)), "rounding")
    note(rounded(np.float32(np.inf)) == np.inf and rounded(np.float32(-np.inf)) == -np.inf, "infinity")
    note(rounded(np.finfo(np.float32).max) == np.inf, "overflow")
    note(np.isnan(rounded(np.uint32(0x7FFFFFFF).view(np.float32))), "NaN")


def check_matrices():
    """Register m of lane 4 g + t: elements 2 t and 2 t + 1 of row g of matrix m."""
    source, out = np.arange(256, dtype=np.uint16), np.zeros(128, np.uint32)
    kernels.matrices[1, 32](source, out)
    for lane in range(32):
        for m in range(4):
            pair = source.reshape(4, 8, 8)[m, lane // 4, 2 * (lane % 4) :][:2]
            note(out[4 * lane + m] == int(pair[0]) | int(pair[1]) << 16, f"matrix {m}, lane {lane}")


def check_copies():
    """What is not counted is zero, and not read."""
    for count in (0, 2):
        source, out = np.arange(1, 129, dtype=np.float32), np.full(160, np.nan, np.float32)
        kernels.copies[1, 32](source, out, count)
        wanted = source.reshape(32, 4) * (np.arange(4) < (np.arange(32)[:, None] + count) % 5)
        note(np.array_equal(out[:128].reshape(32, 4), np.roll(wanted, -7, axis=0)), f"quads {count}")
        note(np.array_equal(out[128:], np.roll(source[:32], -7)), f"single elements {count}")


def check_vectors():
    """Every element that kernels read and write in quads."""
    for dtype in (np.float16, np.uint16, np.float32, np.float64, np.int32):
        source, out = np.arange(132).astype(dtype), np.zeros(192, dtype)
        kernels.vectors[1, 32](source, out)
        note(np.array_equal(out[:128], source[4:].reshape(32, 4)[:, ::-1].ravel()), f"quads of {dtype}")
        note(np.array_equal(out[128:], source[2:66].reshape(32, 2)[:, ::-1].ravel()), f"pairs of {dtype}")


if __name__ == "__main__":
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
    print(json.dumps(found))  # noqa: T201
