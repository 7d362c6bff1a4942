"""explain: the plan, the choice, and every candidate's answer, forced ones included."""

import pytest

import numbaconv
from numbaconv import explain
from numbaconv.backends import registry
from numbaconv.backends.base import Direction

SHAPES = ((1, 8, 14, 14), (16, 8, 3, 3))


@pytest.mark.parametrize(
    ("direction", "transposed", "primitive"),
    [
        ("forward", False, Direction.FORWARD),
        ("input", False, Direction.INPUT_GRAD),
        ("weight", False, Direction.WEIGHT_GRAD),
        ("forward", True, Direction.INPUT_GRAD),
        ("input", True, Direction.FORWARD),
        ("weight", True, Direction.WEIGHT_GRAD),
    ],
)
def test_primitives(direction, transposed, primitive):
    weight = (8, 16, 3, 3) if transposed else SHAPES[1]
    found = explain(SHAPES[0], weight, direction=direction, transposed=transposed, padding=1)
    assert found.direction is primitive
    assert found.plan.transposed == transposed
    table = registry.resolve(None).tables[primitive]
    assert [each.name for each in found.candidates] == [each.name for each in table]
    assert found.algorithm == next(
        each.name for each in found.candidates if each.refusal is None and each.passed_over is None
    )
    assert f"-> {found.algorithm}: accepts" in str(found)
    assert found.note == f"{found.algorithm!r} is the first that accepts and is worth it"


def test_folded_axes():
    text = str(explain((1, 1, 64, 64, 3), (1, 1, 9, 9, 1), padding=(4, 4, 0)))
    assert "computed as spatial axes (64, 192) and kernel (9, 9) at dilation (1, 3)" in text
    assert "computed as" not in str(explain(*SHAPES))


def test_none_is_worth_it(monkeypatch):
    monkeypatch.setenv("NUMBACONV_DISABLE", "small_gemm,patch_gemm,implicit_gemm,direct")
    shapes = (1, 16, 1, 1), (16, 16, 3, 3)  # one tile, mostly of padding
    found = explain(*shapes, padding=1)
    accepting = [each for each in found.candidates if each.refusal is None and "disabled" not in str(each.passed_over)]
    assert found.algorithm == accepting[0].name
    assert accepting[0].passed_over is not None
    assert found.note == f"{found.algorithm!r} is the first that accepts; none is worth it"


def test_forced():
    assert "is forced" in explain(*SHAPES, backend="reference", algorithm="numpy").note
    found = explain(*SHAPES, backend="reference", algorithm="winograd")
    assert found.algorithm is None
    assert "'winograd'" in found.note
    assert "numpy" in found.note


def test_backend_choice():
    with numbaconv.use_backend("reference"):
        assert explain(*SHAPES).backend == "reference"
    assert explain(*SHAPES).backend == "cpu"


def test_errors_are_the_calls_own():
    with pytest.raises(numbaconv.ShapeError, match="3 channels per group"):
        explain((1, 4, 5), (2, 3, 3))
    with pytest.raises(numbaconv.ArgumentError, match="direction is 'sideways'"):
        explain(*SHAPES, direction="sideways")
    with pytest.raises(numbaconv.BackendError, match="'abacus' is unknown"):
        explain(*SHAPES, backend="abacus")
