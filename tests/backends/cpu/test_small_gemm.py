"""Where small GEMM refuses."""

from numbaconv.backends.base import Direction
from numbaconv.backends.cpu.small_gemm_conv import SMALL_GEMM
from numbaconv.plan import plan_conv


def test_many_stride_phases_are_refused():
    """Its tables would take far longer to make than any call takes."""
    algorithm = SMALL_GEMM[Direction.INPUT_GRAD]
    for stride, refused in ((4, False), (20, True), (40, True)):
        plan = plan_conv((1, 3, 3, 3), (3, 8, 4, 4), stride=stride, transposed=True, dtype="float32")
        assert (algorithm.accepts(plan) is not None) == refused
