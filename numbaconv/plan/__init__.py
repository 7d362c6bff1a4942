"""The shape-planning core: integers only, the standard library only."""

from .arguments import DEFAULT_PRECISION, PRECISIONS, Geometry, Ints, Padding, PaddingMode, Scalar
from .axis import CONSTANT, PADDING_MODES, UNIT_CODE, ZERO, Axis, border_cell
from .dtypes import ASKED, SUPPORTED, accumulator, dtype_name, dtype_rule, holds
from .folding import Folds, folded_as, scoped_folds
from .network import ReceptiveField, count_parameters, layer_weight_shape, output_shape, receptive_field
from .problem import ConvPlan, check_axes, make_plan, plan_conv, rank_of

__all__ = [
    "ASKED",
    "CONSTANT",
    "DEFAULT_PRECISION",
    "PADDING_MODES",
    "PRECISIONS",
    "SUPPORTED",
    "UNIT_CODE",
    "ZERO",
    "Axis",
    "ConvPlan",
    "Folds",
    "Geometry",
    "Ints",
    "Padding",
    "PaddingMode",
    "ReceptiveField",
    "Scalar",
    "accumulator",
    "border_cell",
    "check_axes",
    "count_parameters",
    "dtype_name",
    "dtype_rule",
    "folded_as",
    "holds",
    "layer_weight_shape",
    "make_plan",
    "output_shape",
    "plan_conv",
    "rank_of",
    "receptive_field",
    "scoped_folds",
]
