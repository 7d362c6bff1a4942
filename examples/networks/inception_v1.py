"""GoogLeNet, whose nine Inception blocks put kernels of three sizes side by side (Szegedy et al. 2015).

Table 1 of the paper counts weights without biases, in units of 1024 where it says K. Its multiply-adds agree with its
channels in every block but 5a (54M instead of 51M), its parameters only in the rows below.
"""

from network import Network, Published
from program import main

#: 1x1; 3x3 and the 1x1 before it; 5x5 and the 1x1 before it; 1x1 after the pool.
BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
#: Rounded up at the border, as the authors' software does it.
_DOWN = {"kernel": 3, "stride": 2, "padding": (0, 1)}


def block(net: Network, x: int, name: str) -> int:
    """Four branches, side by side."""
    one, before_three, three, before_five, five, after_pool = BLOCKS[name]
    branches = [net.conv(x, one, 1, name=f"{name}/1x1")]
    y = net.conv(x, before_three, 1, name=f"{name}/3x3_reduce")
    branches.append(net.conv(y, three, 3, padding=1, name=f"{name}/3x3"))
    y = net.conv(x, before_five, 1, name=f"{name}/5x5_reduce")
    branches.append(net.conv(y, five, 5, padding=2, name=f"{name}/5x5"))
    y = net.pool(x, "max_pool", 3, 1, (1, 1), name=f"{name}/pool")
    branches.append(net.conv(y, after_pool, 1, name=f"{name}/pool_proj"))
    return net.concat(branches, name)


def build(size: int = 224) -> Network:
    net = Network("Inception v1 (GoogLeNet)", (3, size, size))
    x = net.conv(0, 64, 7, stride=2, padding=3, name="conv1")
    x = net.pool(x, "max_pool", name="pool1", **_DOWN)
    x = net.conv(x, 64, 1, name="conv2_reduce")
    x = net.conv(x, 192, 3, padding=1, name="conv2")
    x = net.pool(x, "max_pool", name="pool2", **_DOWN)
    for name in BLOCKS:
        if name in ("4a", "5a"):
            x = net.pool(x, "max_pool", name=f"pool{int(name[0]) - 1}", **_DOWN)
        x = block(net, x, name)
    x = net.global_pool(x)
    net.conv(x, 1000, 1, activation=None, name="classifier")
    return net


def _weights(net: Network, name: str) -> float:
    """The block's weights in units of 1024, without biases."""
    plans = [step.plan for step in net.steps if step.plan and step.name.startswith(name)]
    return sum(plan.parameters - plan.out_channels for plan in plans) / 1024


def _operations(net: Network, name: str) -> float:
    return sum(step.plan.macs for step in net.steps if step.plan and step.name.startswith(name)) / 1e6


#: Millions of multiply-adds by block, and units of 1024 parameters.
OPERATIONS = {"conv2": 360, "3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170, "5b": 71}
PARAMETERS = {"conv2": 112, "3a": 159, "3b": 380, "4b": 437}
SOURCE = "Szegedy et al. 2015, Table 1"
PUBLISHED = [
    Published(f"{name}: parameters / 1024", count, 1, SOURCE, lambda net, name=name: _weights(net, name))
    for name, count in PARAMETERS.items()
] + [
    Published(f"{name}: multiply-adds / 10^6", count, 1, SOURCE, lambda net, name=name: _operations(net, name))
    for name, count in OPERATIONS.items()
]

if __name__ == "__main__":
    main(build, PUBLISHED)
