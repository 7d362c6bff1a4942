"""Modules that compute with numbaconv, and models whose modules become those."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from ...errors import ArgumentError
from .functions import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "patch",
    "unpatch",
]


class _Conv:
    """What replaces the computation of a convolution of `torch.nn`; everything else is as it was."""

    _function: ClassVar[Callable[..., Tensor]]

    def _conv_forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._function(  # type: ignore[no-any-return]
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
        )


class _ConvTranspose:
    """The same for a transposed convolution."""

    _function: ClassVar[Callable[..., Tensor]]

    def forward(self: Any, input: Tensor, output_size: Any = None) -> Tensor:
        """The output; ``output_size`` with or without the axes of batch and channels, as PyTorch takes it."""
        rank = len(self.kernel_size)
        if output_size is not None:
            output_size = tuple(output_size)
            if len(output_size) == input.dim():
                output_size = output_size[-rank:]
        return self._function(  # type: ignore[no-any-return]
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            0 if output_size is not None else self.output_padding,
            self.groups,
            self.dilation,
            output_size=output_size,
        )


class Conv1d(_Conv, nn.Conv1d):  # type: ignore[misc]
    """`torch.nn.Conv1d`, computed by numbaconv."""

    _function = staticmethod(conv1d)


class Conv2d(_Conv, nn.Conv2d):  # type: ignore[misc]
    """`torch.nn.Conv2d`, computed by numbaconv."""

    _function = staticmethod(conv2d)


class Conv3d(_Conv, nn.Conv3d):  # type: ignore[misc]
    """`torch.nn.Conv3d`, computed by numbaconv."""

    _function = staticmethod(conv3d)


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):  # type: ignore[misc]
    """`torch.nn.ConvTranspose1d`, computed by numbaconv."""

    _function = staticmethod(conv_transpose1d)


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):  # type: ignore[misc]
    """`torch.nn.ConvTranspose2d`, computed by numbaconv."""

    _function = staticmethod(conv_transpose2d)


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):  # type: ignore[misc]
    """`torch.nn.ConvTranspose3d`, computed by numbaconv."""

    _function = staticmethod(conv_transpose3d)


_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: Conv1d,
    nn.Conv2d: Conv2d,
    nn.Conv3d: Conv3d,
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def _obstacle(name: str, module: nn.Module) -> str | None:
    """Why a module cannot be replaced; None where it can, or need not."""
    kind = type(module)
    if kind in _THEIRS or not isinstance(module, tuple(_OURS)):
        return None
    where = f"module {name!r} ({kind.__name__})" if name else f"the model ({kind.__name__})"
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        return f"{where} is lazy: call the model once, so that it gets its parameters, and patch it then"
    if kind not in _OURS:
        return f"{where} is of a class of its own, which may compute something else"
    if {"forward", "_conv_forward"} & set(vars(module)):
        return f"{where} has a forward of its own"
    return None


def patch(model: nn.Module, *, subclasses: str = "refuse") -> dict[str, type[nn.Module]]:
    """Make a model's convolutions compute with numbaconv, in place.

    Each module stays the object that it is, with its parameters, hooks, buffers and place: only its class changes, to
    the one of the same name here, which is a subclass of its old one. So optimisers, ``state_dict`` and references
    need no change. Convolutions that a model calls as functions are not modules, and stay as they are.

    Parameters
    ----------
    model : torch.nn.Module
        Itself and all modules in it are looked at.
    subclasses : str
        What becomes of modules whose class is not one of `torch.nn`'s own, such as parametrised ones: "refuse", an
        error, or "keep", as they are. Lazy modules without parameters are an error in any case.

    Returns
    -------
    dict
        The classes that were replaced, by the modules' names in the model. Empty if there was nothing left to do.

    Raises
    ------
    ArgumentError
        Before anything is changed.
    TypeError
        If the model is no module.

    Examples
    --------
    >>> import torch
    >>> from numbaconv.interop.torch import patch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> sorted(patch(model))
    ['0']
    >>> model
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
    )
    >>> patch(model)
    {}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"patch: model must be a torch.nn.Module, but is {type(model).__name__}")
    if subclasses not in ("refuse", "keep"):
        raise ArgumentError(f"patch: subclasses must be 'refuse' or 'keep', but is {subclasses!r}")
    found = {}
    for name, module in model.named_modules():
        reason = _obstacle(name, module)
        lazy = isinstance(module, nn.modules.lazy.LazyModuleMixin)
        if reason is not None and (subclasses == "refuse" or lazy):
            hint = "" if lazy else "; subclasses='keep' leaves such modules as they are"
            raise ArgumentError(f"patch: {reason}{hint}")
        if reason is None and type(module) in _OURS:
            found[name] = module
    replaced = {name: type(module) for name, module in found.items()}
    for module in found.values():
        module.__class__ = _OURS[type(module)]
    return replaced


def unpatch(model: nn.Module) -> dict[str, type[nn.Module]]:
    """Make a model's convolutions PyTorch's own again, in place.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    dict
        The classes that were replaced, by the modules' names in the model.

    Raises
    ------
    TypeError
        If the model is no module.

    Examples
    --------
    >>> import torch
    >>> from numbaconv.interop.torch import patch, unpatch
    >>> model = torch.nn.Conv2d(3, 8, 3)
    >>> patch(model) == {"": torch.nn.Conv2d}
    True
    >>> unpatch(model), type(model) is torch.nn.Conv2d
    ({'': <class 'numbaconv.interop.torch.modules.Conv2d'>}, True)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"unpatch: model must be a torch.nn.Module, but is {type(model).__name__}")
    found = {name: module for name, module in model.named_modules() if type(module) in _THEIRS}
    replaced = {name: type(module) for name, module in found.items()}
    for module in found.values():
        module.__class__ = _THEIRS[type(module)]
    return replaced
