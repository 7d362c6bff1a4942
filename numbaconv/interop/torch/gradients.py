"""Gradients of the operators, in terms of the operators, and what `torch.vmap` makes of them.

PyTorch's operators with registered gradients do not go through `torch.func`, and lose the tangents of forward mode
without a word. So each operator is called by a function here, which under such a transformation, or inside a
``dual_level``, takes an `autograd.Function` with the same formulas and those of tangents.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.autograd import forward_ad

from ..activations import derivative, from_output, is_named
from ..spec import Spec
from . import operators
from .errors import ArgumentError
from .operators import read_spec

__all__ = ["convolution", "is_forward_mode"]

_FIELDS = len(Spec._fields)
#: NumPy's names, and two more, in PyTorch.
_MATHS = SimpleNamespace(
    abs=torch.abs,
    erfc=torch.erfc,
    exp=torch.exp,
    full_like=torch.full_like,
    ones_like=torch.ones_like,
    sigmoid=torch.sigmoid,
    where=torch.where,
    zeros_like=torch.zeros_like,
)
_HALVES = (torch.float16, torch.bfloat16)


def is_forward_mode() -> bool:
    """Whether tensors may have tangents."""
    return forward_ad._current_level >= 0  # type: ignore[attr-defined,no-any-return]


def _check_forward_modes() -> None:
    """PyTorch forgets the inner of two forward modes in an `autograd.Function`, and tells nobody.

    Raises
    ------
    ArgumentError
        Inside of two.
    """
    stack = torch._C._functorch.get_interpreter_stack() or ()
    if sum(each.key() == torch._C._functorch.TransformType.Jvp for each in stack) > 1:
        raise ArgumentError(
            "forward mode cannot be taken over forward mode here: use torch.func.jacrev, grad or vjp for one of the two"
        )


@torch.compiler.assume_constant_result
def _is_differentiated() -> bool:
    """Whether there are tangents, or `torch.func` takes derivatives: compiled graphs are guarded by both."""
    kinds = torch._C._functorch.TransformType
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return is_forward_mode() or any(each.key() in (kinds.Grad, kinds.Jvp) for each in stack)


@torch.compiler.disable
def _apply(function: Any, arguments: tuple[Any, ...]) -> torch.Tensor:
    """What compilers leave to Python: in their graphs operators would lose what such transformations ask for."""
    _check_forward_modes()
    found: torch.Tensor = function.apply(*arguments)
    return found


def _keep_for_tangents(ctx: Any, *tensors: torch.Tensor | None) -> None:
    """What tangents need, where there may be any: nobody releases it before the graph itself."""
    if not torch.compiler.is_compiling() and is_forward_mode():
        ctx.save_for_forward(*tensors)


def _total(*parts: torch.Tensor | None) -> torch.Tensor | None:
    """The sum of those that are there."""
    found: torch.Tensor | None = None
    for part in parts:
        if part is not None:
            found = part if found is None else found + part
    return found


def _by_channel(grad: torch.Tensor, spec: Spec) -> torch.Tensor:
    """The gradient by a bias: the sum over all but channels."""
    at = grad.dim() - len(spec.stride) - 1
    return grad.sum([axis for axis in range(grad.dim()) if axis != at])


def _convolution_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    input, weight, bias, residual, *rest = inputs
    ctx.spec, (ctx.activation, ctx.algorithm, *ctx.how) = rest[:_FIELDS], rest[_FIELDS:]
    # What a derivative needs: the result, or else operands, from which the pre-activation is computed again.
    again = bool(ctx.activation) and not from_output(ctx.activation)
    by_its_input, by_its_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(
        input if by_its_weight or again else None,
        weight if by_its_input or again else None,
        bias if again else None,
        residual if again else None,
        output if ctx.activation and not again else None,
    )
    _keep_for_tangents(ctx, input, weight, bias, residual, output if ctx.activation and not again else None)
    ctx.sizes, ctx.output_size = (input.shape, weight.shape), output.shape
    ctx.dtypes = [None if each is None else each.dtype for each in (bias, residual)]


def _by_pre_activation(ctx: Any, grad: torch.Tensor, saved: Any) -> torch.Tensor:
    """The gradient by the sums, from the gradient by the result."""
    input, weight, bias, residual, output = saved
    if not ctx.activation:
        return grad
    at = output
    if at is None:
        at = convolution(input, weight, bias, residual, *ctx.spec, "", ctx.algorithm, *ctx.how)
    if not is_named(ctx.activation):
        return activation_gradient(grad, at, ctx.activation, ctx.how[0])
    wide = at.float() if at.dtype in _HALVES else at  # as the kernels compute it
    return (grad * derivative(_MATHS, ctx.activation, wide)).to(at.dtype)


def _convolution_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    input, weight = saved[:2]
    input_size, weight_size = ctx.sizes
    grad = _by_pre_activation(ctx, grad, saved)
    needs, (bias_dtype, residual_dtype) = ctx.needs_input_grad, ctx.dtypes
    return (
        by_input(input_size, weight, grad, *ctx.spec, *ctx.how) if needs[0] else None,
        by_weight(input, weight_size, grad, *ctx.spec, *ctx.how) if needs[1] else None,
        _by_channel(grad, read_spec(ctx.spec)).to(bias_dtype) if needs[2] else None,
        grad.to(residual_dtype) if needs[3] else None,
        *(None,) * (_FIELDS + 4),
    )


def _convolution_tangent(ctx: Any, *tangents: Any) -> torch.Tensor | None:
    input, weight, *_ = saved = ctx.saved_tensors
    by_input, by_weight, by_bias, by_residual = tangents[:4]
    linear, plain = read_spec(ctx.spec).without_value(), ("", None, *ctx.how)
    added = _total(
        None if by_input is None else convolution(by_input, weight, None, None, *linear, *plain),
        None if by_weight is None else convolution(input, by_weight, None, None, *ctx.spec, *plain),
        None if by_bias is None else by_bias.reshape(-1, *(1,) * len(linear.stride)),
        by_residual,
    )
    if added is None:
        return None
    return _by_pre_activation(ctx, added.expand(ctx.output_size), saved)


def _by_input_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.input_size, weight, grad, *rest = inputs
    ctx.spec, ctx.how = rest[:_FIELDS], rest[_FIELDS:]
    ctx.weight_size = weight.shape
    _keep_for_tangents(ctx, weight, grad)
    ctx.save_for_backward(weight if ctx.needs_input_grad[2] else None, grad if ctx.needs_input_grad[1] else None)


def _by_input_tangent(ctx: Any, *tangents: Any) -> torch.Tensor | None:
    weight, grad = ctx.saved_tensors
    rest = *ctx.spec, *ctx.how
    return _total(
        None if tangents[1] is None else by_input(ctx.input_size, tangents[1], grad, *rest),
        None if tangents[2] is None else by_input(ctx.input_size, weight, tangents[2], *rest),
    )


def _by_input_backward(ctx: Any, again: torch.Tensor) -> tuple[Any, ...]:
    weight, grad = ctx.saved_tensors
    spec = read_spec(ctx.spec).without_value()
    return (
        None,
        by_weight(again, ctx.weight_size, grad, *spec, *ctx.how) if ctx.needs_input_grad[1] else None,
        convolution(again, weight, None, None, *spec, "", None, *ctx.how) if ctx.needs_input_grad[2] else None,
        *(None,) * (_FIELDS + 2),
    )


def _by_weight_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    input, ctx.weight_size, grad, *rest = inputs
    ctx.spec, ctx.how = rest[:_FIELDS], rest[_FIELDS:]
    ctx.input_size = input.shape
    _keep_for_tangents(ctx, input, grad)
    ctx.save_for_backward(input if ctx.needs_input_grad[2] else None, grad if ctx.needs_input_grad[0] else None)


def _by_weight_tangent(ctx: Any, *tangents: Any) -> torch.Tensor | None:
    input, grad = ctx.saved_tensors
    linear = read_spec(ctx.spec).without_value()
    return _total(
        None if tangents[0] is None else by_weight(tangents[0], ctx.weight_size, grad, *linear, *ctx.how),
        None if tangents[2] is None else by_weight(input, ctx.weight_size, tangents[2], *ctx.spec, *ctx.how),
    )


def _by_weight_backward(ctx: Any, again: torch.Tensor) -> tuple[Any, ...]:
    input, grad = ctx.saved_tensors
    return (
        by_input(ctx.input_size, again, grad, *ctx.spec, *ctx.how) if ctx.needs_input_grad[0] else None,
        None,
        convolution(input, again, None, None, *ctx.spec, "", None, *ctx.how) if ctx.needs_input_grad[2] else None,
        *(None,) * (_FIELDS + 2),
    )


def _activation_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    """Nothing is known that a gradient could use."""


def _activation_tangent(ctx: Any, *tangents: Any) -> None:
    _activation_backward(ctx, tangents)


def _activation_backward(ctx: Any, again: Any) -> tuple[Any, ...]:
    raise ArgumentError(
        "the gradient of a gradient needs the activation's second derivative, which is known for activations that "
        "have names; a function comes with its first alone"
    )


def _one_by_one(operator: Callable[..., torch.Tensor], count: int, dims: Any, arguments: Any) -> torch.Tensor:
    """An operator over an axis of its arguments, each entry a call."""
    mapped = [isinstance(dim, int) for dim in dims]
    entries = (
        operator(
            *(each.select(dim, at) if one else each for each, dim, one in zip(arguments, dims, mapped, strict=True))
        )
        for at in range(count)
    )
    return torch.stack(list(entries))


def _mapped_convolution(info: Any, dims: Any, *arguments: Any) -> tuple[torch.Tensor, int]:
    """Where one weight serves all, the mapped axis is part of the batch."""
    input, weight, bias, residual, *rest = arguments
    spec = read_spec(rest[:_FIELDS])
    batched = input.dim() - 1 == len(spec.stride) + 2
    if dims[0] is None or dims[1] is not None or dims[2] is not None or residual is not None or not batched:
        return _one_by_one(convolution, info.batch_size, dims, arguments), 0
    input = input.movedim(dims[0], 0)
    found = convolution(input.flatten(0, 1), weight, bias, None, *rest)
    return found.unflatten(0, input.shape[:2]), 0


def _mapped_by_input(info: Any, dims: Any, *arguments: Any) -> tuple[torch.Tensor, int]:
    size, weight, grad, *rest = arguments
    batched = len(size) == len(rest[1]) + 2
    if dims[1] is not None or dims[2] is None or not batched:
        return _one_by_one(by_input, info.batch_size, dims, arguments), 0
    grad = grad.movedim(dims[2], 0)
    found = by_input((info.batch_size * size[0], *size[1:]), weight, grad.flatten(0, 1), *rest)
    return found.unflatten(0, grad.shape[:2]), 0


def _mapped_by_weight(info: Any, dims: Any, *arguments: Any) -> tuple[torch.Tensor, int]:
    return _one_by_one(by_weight, info.batch_size, dims, arguments), 0


def _mapped_activation(info: Any, dims: Any, *arguments: Any) -> tuple[torch.Tensor, int]:
    return _one_by_one(activation_gradient, info.batch_size, dims, arguments), 0


def _transformable(
    operator: Any,
    setup: Callable[..., None],
    backward: Callable[..., tuple[Any, ...]],
    tangent: Callable[..., torch.Tensor | None],
    mapped: Callable[..., tuple[torch.Tensor, int]],
) -> Callable[..., torch.Tensor]:
    """The operator with its gradients registered, as a function that `torch.func` can transform."""
    operator.register_autograd(backward, setup_context=setup)
    operator.register_vmap(mapped)
    members = {
        "forward": staticmethod(lambda *arguments: operator(*arguments)),
        "setup_context": staticmethod(setup),
        "backward": staticmethod(backward),
        "jvp": staticmethod(tangent),
        "vmap": staticmethod(mapped),
    }
    function: Any = type(operator._name, (torch.autograd.Function,), members)

    def call(*arguments: Any) -> torch.Tensor:
        if torch.compiler.is_compiling():
            transformed = _is_differentiated()
        else:
            transformed = torch._C._are_functorch_transforms_active() or is_forward_mode()
        found: torch.Tensor = _apply(function, arguments) if transformed else operator(*arguments)
        return found

    return call


convolution = _transformable(
    operators.convolution, _convolution_setup, _convolution_backward, _convolution_tangent, _mapped_convolution
)
by_input = _transformable(operators.by_input, _by_input_setup, _by_input_backward, _by_input_tangent, _mapped_by_input)
by_weight = _transformable(
    operators.by_weight, _by_weight_setup, _by_weight_backward, _by_weight_tangent, _mapped_by_weight
)
activation_gradient = _transformable(
    operators.activation_gradient, _activation_setup, _activation_backward, _activation_tangent, _mapped_activation
)
