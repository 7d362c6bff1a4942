"""What the hardware would be given: every kernel compiled, linked and disassembled for devices that are not here.

No spills, nothing on the stack, registers within the launch bounds, most of the main loop multiply-adds, and accesses
of 128 bits where there are quads. Each kernel is compiled once and linked for every architecture. ``pytest -m slow``
compiles all combinations, which takes tens of minutes; without it, each tile, dtype and way to gather at least once.
"""

import os

import compile_check
import pytest

ABSENT = compile_check.missing()
ARCHITECTURES = ((7, 5), (8, 0), (9, 0))
#: The part of the main loop's instructions that must be multiply-adds, by the sums of a thread: the fewer, the less
#: there is to do with what it loads. Looking up a tap, which one step in many does, is part of the loop, too, and of
#: weight gradients what eight threads do for all. Where every element finds a tap of its own (flat) there are more.
LEAST_SHARE = {
    "gather": {64: 0.65, 32: 0.5, 16: 0.36},
    "flat": {64: 0.52, 32: 0.35, 16: 0.22},
    "weight": {64: 0.54, 32: 0.31, 16: 0.18},
}

if ABSENT is None:
    import kernels
    import more_kernels

    ALL = {str(case): case for case in kernels.cases()}
    SMALL = {str(case): case for case in kernels.small_cases()}
    DEPTHWISE = {str(case): case for case in kernels.depthwise_cases()}
    TENSOR = {str(case): case for case in kernels.tensor_cases()}
    WINOGRAD = {str(case): case for case in kernels.winograd_cases()}
    ENDS = {str(case): case for case in more_kernels.epilogue_cases()}
    OTHERS = {str(case): case for case in (*more_kernels.direct_cases(), *more_kernels.elementwise_cases())}
else:
    ALL = SMALL = DEPTHWISE = TENSOR = WINOGRAD = ENDS = OTHERS = {}


def in_short(name):
    """Whether a kernel is compiled without being asked: every tile with float32, the first with all else."""
    kind, tile, dtype, how, *place = name.split()
    first = tile == ("64x64" if dtype == "float64" else "128x128")
    if dtype == "float32":
        return first or (kind, how) == ("weight", "each") or (how, *place) == ("each", "first")
    return first and how != "flat" and (how, *place) != ("each", "last")


SHORT = [name for name in ALL if in_short(name)]
LONG = [name for name in ALL if not in_short(name)]


def test_what_this_needs_is_installed():
    if ABSENT is not None:
        message = f"kernels cannot be compiled without a device: {ABSENT}"
        if os.environ.get("NUMBACONV_REQUIRE_CUDA"):
            pytest.fail(message)
        pytest.skip(message)
    assert SHORT
    assert LONG
    assert SMALL
    assert DEPTHWISE
    assert ENDS
    assert SHORT_OTHERS == FEW_OTHERS
    assert WINOGRAD
    assert TENSOR


def check(case):
    assert case.kernel.targetoptions["launch_bounds"][0] == case.threads
    codes = compile_check.to_ltoir(case.kernel, case.signature, ARCHITECTURES[0])
    blocks = case.kernel.targetoptions["launch_bounds"][1]
    for cc in ARCHITECTURES:
        found = compile_check.link(codes, cc)
        label = f"{case} for {cc}"
        assert found.spilled == 0, label
        assert found.stack == 0, label
        assert found.registers * case.threads * blocks <= 65536, label
        assert found.shared <= 48 * 1024, label
        share, words = found.share(case.operation), case.name.split()
        assert share >= LEAST_SHARE["flat" if words[3] == "flat" else words[0]][case.sums], (
            f"{label}: {share:.2f} of {found.main_loop(case.operation).total()}"
        )
        loop = found.main_loop(case.operation)
        # Eight depths, each of a quad or two of rows and of columns; elements of 64 bits take two accesses.
        reads = 8 * case.quads * (2 if case.operation == "DFMA" else 1)
        wide_reads = loop["LDS.128"] + loop["LDS.U.128"]  # sm_75 has the latter
        assert reads <= wide_reads <= reads + 2, label
        assert loop[case.operation] == 8 * case.sums, label
        if case.wide:
            wide = [name for name in loop if name.startswith(("LDG.E.128", "LDG.E.64"))]
            assert wide, label


@pytest.mark.parametrize("name", SHORT)
def test_kernels(name):
    check(ALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_all_kernels(name):
    check(ALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_small_kernels(name):
    case = SMALL[name]
    architectures = ARCHITECTURES[1:] if "rows" in name else ARCHITECTURES  # for tensor cores, which 7.5 lacks
    codes = compile_check.to_ltoir(case.kernel, case.signature, architectures[0])
    for cc in architectures:
        found = compile_check.link(codes, cc)
        assert (found.spilled, found.stack) == (0, 0), f"{case} for {cc}"


def check_depthwise(case):
    codes = compile_check.to_ltoir(case.kernel, case.signature, ARCHITECTURES[0])
    for cc in ARCHITECTURES:
        found = compile_check.link(codes, cc)
        label = f"{case} for {cc}"
        assert (found.spilled, found.stack) == (0, 0), label
        blocks = 3 if case.operation == "DFMA" else 4
        assert found.registers * case.threads * blocks <= 65536, f"{label}: {found.registers}"
        assert found.shared <= 48 * 1024, label
        assert found.main_loop(case.operation)[case.operation] > 0, label


SHORT_DEPTHWISE = [name for name in DEPTHWISE if name.endswith(("float32 3 taps", "float32 phases", "float32 3x3"))]


@pytest.mark.parametrize("name", SHORT_DEPTHWISE)
def test_depthwise_kernels(name):
    check_depthwise(DEPTHWISE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DEPTHWISE if name not in SHORT_DEPTHWISE])
def test_all_depthwise_kernels(name):
    check_depthwise(DEPTHWISE[name])


#: Of epilogues: the longer one, in the largest and in the smallest tile, each with a layout; and in a sweep.
SHORT_ENDS = [
    name
    for name in ENDS
    if name.startswith(("gather 128x128 float32 each first", "gather 16x64 float32 each last", "sweep float32 3 taps"))
    and name.endswith("user's")
]


def check_end(case):
    (check if case.name.startswith("gather") else check_depthwise)(case)


@pytest.mark.parametrize("name", SHORT_ENDS)
def test_epilogues(name):
    check_end(ENDS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENDS if name not in SHORT_ENDS])
def test_all_epilogues(name):
    check_end(ENDS[name])


def check_other(case):
    codes = compile_check.to_ltoir(case.kernel, case.signature, ARCHITECTURES[0])
    for cc in ARCHITECTURES:
        found = compile_check.link(codes, cc)
        assert (found.spilled, found.stack) == (0, 0), f"{case} for {cc}"
        assert found.registers * case.threads * 3 <= 65536, f"{case} for {cc}: {found.registers}"


FEW_OTHERS = [
    "direct forward float32 32 bits: bias, residual, user's",
    "direct input float32 32 bits",
    "direct weight float32 32 bits",
    "channel sums float32",
    "scale complex64",
    "copy float32",
]
SHORT_OTHERS = [name for name in FEW_OTHERS if name in OTHERS]


@pytest.mark.parametrize("name", SHORT_OTHERS)
def test_other_kernels(name):
    check_other(OTHERS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OTHERS if name not in SHORT_OTHERS])
def test_all_other_kernels(name):
    check_other(OTHERS[name])


def check_winograd(case):
    codes = compile_check.to_ltoir(case.kernel, case.signature, ARCHITECTURES[0])
    kind, dtype, tile, *_ = case.name.split()
    area = {"2x2": 16, "4x4": 36}[tile]
    for cc in ARCHITECTURES:
        found = compile_check.link(codes, cc)
        label = f"{case} for {cc}"
        assert (found.spilled, found.stack) == (0, 0), label
        # Four blocks of a transform on a multiprocessor.
        assert found.registers * case.threads * 4 <= 65536, f"{label}: {found.registers}"
        operations = found.operations
        loads = sum(count for name, count in operations.items() if name.startswith("LDG"))
        stores = sum(count for name, count in operations.items() if name.startswith("STG"))
        results = {"2x2": 4, "4x4": 16}[tile]
        by = int(case.name.split()[-1]) if " by " in case.name else 1
        halves = 2 if (dtype, by) == ("float64", 4) else 1  # quads of 64 bits are two accesses
        wanted = results // by * halves if kind == "result" else area
        most = 2 * wanted if (kind, dtype, by) == ("result", "bfloat16", 1) else wanted  # NaN is stored by itself
        assert wanted <= stores <= most, f"{label}: {stores}"
        least = 9 if kind == "weight" else area
        assert least <= loads <= least + 80, f"{label}: {loads}"
        assert any(name.startswith("STG.E.128") for name in operations) == case.wide, label


SHORT_WINOGRAD = [name for name in WINOGRAD if "float32 4x4" in name or name in ("source float16 2x2 last",)]


@pytest.mark.parametrize("name", SHORT_WINOGRAD)
def test_winograd_kernels(name):
    check_winograd(WINOGRAD[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WINOGRAD if name not in SHORT_WINOGRAD])
def test_all_winograd_kernels(name):
    check_winograd(WINOGRAD[name])


#: The part of the main loop's instructions that must be products, by kind of kernel and numbers, for tiles of 128x128:
#: one that takes eight cycles of a tensor core (of 8.0) leaves room for as many others.
LEAST_PRODUCTS = {
    ("product", "quads"): {"float16": 0.16, "bfloat16": 0.16, "tf32": 0.14, "3xtf32": 0.13},
    ("product", "each"): {"float16": 0.09, "bfloat16": 0.09, "tf32": 0.09, "3xtf32": 0.12},
    ("product", "flat"): {"float16": 0.035, "bfloat16": 0.035, "tf32": 0.05, "3xtf32": 0.09},
    ("gradient", "first"): {"float16": 0.025, "bfloat16": 0.025, "tf32": 0.035, "3xtf32": 0.05},
    ("gradient", "last"): {"float16": 0.025, "bfloat16": 0.025, "tf32": 0.035, "3xtf32": 0.05},
}


def count_of(operations, name):
    """How many are of a name."""
    return sum(count for each, count in operations.items() if each.startswith(name))


def check_tensor(case):
    kind, tile, numbers, how, *_ = case.name.split()
    blocks = case.kernel.targetoptions["launch_bounds"][1]
    assert case.kernel.targetoptions["launch_bounds"][0] == case.threads
    codes = compile_check.to_ltoir(case.kernel, case.signature, (8, 0))
    for cc in ((8, 0), (9, 0)):
        found = compile_check.link(codes, cc)
        label = f"{case} for {cc}"
        assert (found.spilled, found.stack) == (0, 0), f"{label}: {found.spilled}, {found.stack}"
        assert found.registers * case.threads * blocks <= 65536, f"{label}: {found.registers}"
        assert found.shared <= 48 * 1024, label
        loop = found.main_loop("HMMA")
        assert count_of(loop, "HMMA") == case.sums, label
        if tile == "128x128" and "filled" not in case.name:
            share = found.share("HMMA")
            assert share >= LEAST_PRODUCTS[kind, how][numbers], f"{label}: {share:.3f} of {loop.total()}"
        assert any(name.startswith("LDSM.16.M88.4") for name in loop), label
        # The simulator does not miss these: there, what a warp exchanges goes through barriers of the block.
        assert count_of(loop, "BAR.SYNC") == 1, label
        assert count_of(found.operations, "BAR.SYNC") == (3 if kind == "product" else 2), label
        copies = {name for name in loop if name.startswith("LDGSTS")}
        if kind == "product":
            assert any(name.endswith("128") for name in copies), f"{label}: {copies}"
        if copies:
            assert loop["LDGDEPBAR"] == 1, label
            assert count_of(loop, "DEPBAR.LE") == 1, label
        if case.wide:
            assert copies, label
        else:
            assert any(name.startswith("LDG.E.U16") for name in loop), label


#: Every kind of numbers and way to gather with the largest tile; the other tiles' threads hold less.
SHORT_TENSOR = [
    name
    for name in (
        *(f"product 128x128 {kind} quads last" for kind in ("float16", "bfloat16", "tf32", "3xtf32")),
        *(f"product 128x128 {kind} each first" for kind in ("float16", "3xtf32")),
        "product 128x128 float16 flat last",
        "product 128x128 3xtf32 flat first filled",
        "gradient 128x128 float16 first",
        "gradient 128x128 tf32 last",
        "gradient 128x128 3xtf32 last filled",
    )
    if TENSOR
]


@pytest.mark.parametrize("name", SHORT_TENSOR)
def test_tensor_kernels(name):
    check_tensor(TENSOR[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TENSOR if name not in SHORT_TENSOR])
def test_all_tensor_kernels(name):
    check_tensor(TENSOR[name])
