"""Inception v3: large kernels as stacks of small ones, grids made smaller beside a pool (Szegedy et al. 2016)."""

from collections.abc import Sequence

from network import Network, Published
from program import main

#: Channels and kernel of each convolution of a branch, one after the other; "pool" averages first.
Branch = Sequence[tuple[int, int | tuple[int, int]] | str]


def conv(net: Network, x: int, channels: int, kernel: int | tuple[int, int], name: str, stride: int = 1) -> int:
    """Padded to the same extents, or not at all where it has a stride."""
    rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (rows // 2, columns // 2) if stride == 1 else 0
    return net.conv(x, channels, (rows, columns), stride=stride, padding=padding, name=name)


def branch(net: Network, x: int, steps: Branch, name: str, stride: int = 1) -> int:
    """A branch whose last convolution has the stride."""
    for number, step in enumerate(steps):
        if isinstance(step, str):
            x = net.pool(x, "avg_pool", 3, 1, (1, 1), name=f"{name}/pool")
        else:
            last = number == len(steps) - 1
            x = conv(net, x, *step, name=f"{name}/{number}", stride=stride if last else 1)
    return x


def block(net: Network, x: int, branches: Sequence[Branch], name: str) -> int:
    """Branches side by side on the same grid."""
    made = [branch(net, x, steps, f"{name}/{letter}") for letter, steps in zip("abcd", branches, strict=False)]
    return net.concat(made, name)


def reduction(net: Network, x: int, branches: Sequence[Branch], name: str) -> int:
    """Branches that end with stride 2, beside a pool with the same."""
    made = [branch(net, x, steps, f"{name}/{letter}", stride=2) for letter, steps in zip("abc", branches, strict=False)]
    made.append(net.pool(x, "max_pool", 3, 2, name=f"{name}/pool"))
    return net.concat(made, name)


def block_35(net: Network, x: int, after_pool: int, name: str) -> int:
    """Figure 5 of the paper: the 5x5 branch stayed, as in the authors' software."""
    three = [(64, 1), (96, 3), (96, 3)]
    return block(net, x, [[(64, 1)], [(48, 1), (64, 5)], three, ["pool", (after_pool, 1)]], name)


def block_17(net: Network, x: int, c: int, name: str) -> int:
    """Figure 6: 7x7 kernels as rows and columns."""
    row, column = (1, 7), (7, 1)
    twice = [(c, 1), (c, column), (c, row), (c, column), (192, row)]
    return block(net, x, [[(192, 1)], [(c, 1), (c, row), (192, column)], twice, ["pool", (192, 1)]], name)


def block_8(net: Network, x: int, name: str) -> int:
    """Figure 7: 3x3 kernels as a row and a column side by side."""
    parts = [conv(net, x, 320, 1, f"{name}/a/0")]
    y = conv(net, x, 384, 1, f"{name}/b/0")
    parts += [conv(net, y, 384, (1, 3), f"{name}/b/1"), conv(net, y, 384, (3, 1), f"{name}/b/2")]
    y = conv(net, conv(net, x, 448, 1, f"{name}/c/0"), 384, 3, f"{name}/c/1")
    parts += [conv(net, y, 384, (1, 3), f"{name}/c/2"), conv(net, y, 384, (3, 1), f"{name}/c/3")]
    parts.append(branch(net, x, ["pool", (192, 1)], f"{name}/d"))
    return net.concat(parts, name)


def build(size: int = 299) -> Network:
    net = Network("Inception v3", (3, size, size))
    x = net.conv(0, 32, 3, stride=2, name="conv0")
    x = net.conv(x, 32, 3, name="conv1")
    x = net.conv(x, 64, 3, padding=1, name="conv2")
    x = net.pool(x, "max_pool", 3, 2, name="pool1")
    x = net.conv(x, 80, 1, name="conv3")
    x = net.conv(x, 192, 3, name="conv4")
    x = net.pool(x, "max_pool", 3, 2, name="pool2")
    for number, after_pool in enumerate((32, 64, 64)):
        x = block_35(net, x, after_pool, f"35x35.{number}")
    x = reduction(net, x, [[(384, 3)], [(64, 1), (96, 3), (96, 3)]], "to 17x17")
    for number, channels in enumerate((128, 160, 160, 192)):
        x = block_17(net, x, channels, f"17x17.{number}")
    x = reduction(net, x, [[(192, 1), (320, 3)], [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)]], "to 8x8")
    for number in range(2):
        x = block_8(net, x, f"8x8.{number}")
    x = net.global_pool(x)
    net.conv(x, 1000, 1, activation=None, name="classifier")
    return net


PAPER = "Szegedy et al. 2016, abstract"
PUBLISHED = [
    Published("millions of parameters over 25", 0, 0, f"{PAPER}: less", lambda net: max(net.parameters - 25e6, 0)),
    Published("multiply-adds", 5e9, 1e9, f"{PAPER}: 5 billion", lambda net: net.multiply_adds),
    Published(
        "receptive field", 1311, 0, "Araujo et al. 2019, Distill, table of networks", lambda net: net.field("8x8.1")
    ),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
