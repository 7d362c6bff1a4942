"""Where small GEMM is not chosen, though it accepts."""

from numbaconv.backends.base import Direction
from numbaconv.backends.cpu.small_gemm_conv import SMALL_GEMM
from numbaconv.plan import plan_conv


def test_many_stride_phases_are_left_to_others():
    """Its tables would take far longer to make than any call takes."""
    algorithm = SMALL_GEMM[Direction.INPUT_GRAD]
    for stride, wanted in ((4, False), (20, True), (40, True)):
        plan = plan_conv((1, 3, 3, 3), (3, 8, 4, 4), stride=stride, transposed=True, dtype="float32")
        assert algorithm.accepts(plan) is None
        assert (algorithm.worthwhile(plan) is not None) == wanted
