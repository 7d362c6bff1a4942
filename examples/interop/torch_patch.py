"""Train the same small network with PyTorch's convolutions and with numbaconv's, and compare the losses.

Stripes of four directions in noise, a strided, a circular and a transposed convolution. `patch` changes the modules of
the second network in place: its parameters, optimiser and training loop are PyTorch's.

    pip install 'numbaconv[torch]'
    python examples/interop/torch_patch.py [--steps N]
"""

import argparse
import sys

import torch
from torch import nn

from numbaconv.interop.torch import patch
from numbaconv.progress import compiling_bar

#: float32 rounding, grown by the steps.
TOLERANCE = 1e-3


def stripes(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of 16 by 16 pixels, and which of four directions their stripes have."""
    direction = torch.randint(4, (count,), generator=generator)
    angle = (direction * torch.pi / 4)[:, None, None]
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
    clean = torch.sin(x * torch.cos(angle) + y * torch.sin(angle) + phase)
    return (clean + 0.5 * torch.randn(clean.shape, generator=generator))[:, None], direction


def network() -> nn.Module:
    """The same parameters each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 2, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


def train(model: nn.Module, steps: int) -> list[float]:
    """The losses of some steps."""
    generator = torch.Generator().manual_seed(1)
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for _ in range(steps):
        pictures, direction = stripes(64, generator)
        loss = nn.functional.cross_entropy(model(pictures), direction)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    steps = parser.parse_args().steps
    theirs, ours = network(), network()
    for name, replaced in patch(ours).items():
        print(f"module {name}: {replaced.__name__} computes with numbaconv")
    wanted, found = train(theirs, steps), train(ours, steps)
    for step in range(0, steps, 8):
        print(f"step {step:3}: loss {wanted[step]:.6f} with PyTorch, {found[step]:.6f} with numbaconv")
    difference = max(abs(a - b) for a, b in zip(wanted, found, strict=True))
    print(f"greatest difference: {difference:.1e}")
    return int(difference > TOLERANCE or found[-1] > found[0] / 2)


if __name__ == "__main__":
    with compiling_bar():
        sys.exit(main())
