"""MobileNetV2 (Sandler et al. 2018): wide depthwise convolutions between narrow, linear layers that are added up."""

from network import Network, Published
from program import main

#: Expansion, channels, units and stride of the first one (Table 2 of the paper).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def build(size: int = 224) -> Network:
    net = Network("MobileNetV2", (3, size, size))
    x, taken = net.conv(0, 32, 3, stride=2, padding=1, activation="relu6", name="conv1"), 32
    for stage, (expansion, channels, units, first) in enumerate(STAGES, start=1):
        for unit in range(1, units + 1):
            name, stride, wide, y = f"{stage}.{unit}", first if unit == 1 else 1, expansion * taken, x
            if expansion > 1:
                y = net.conv(y, wide, 1, activation="relu6", name=f"{name}/expand")
            y = net.conv(y, wide, 3, stride=stride, padding=1, groups=wide, activation="relu6", name=f"{name}/dw")
            added = x if stride == 1 and taken == channels else None
            x = net.conv(y, channels, 1, activation=None, residual=added, name=f"{name}/project")
            taken = channels
    x = net.conv(x, 1280, 1, activation="relu6", name="conv9")
    x = net.global_pool(x)
    net.conv(x, 1000, 1, activation=None, name="classifier")
    return net


PAPER = "Sandler et al. 2018, Table 4"
PUBLISHED = [
    Published("parameters", 3.4e6, 0.1e6, PAPER, lambda net: net.parameters),
    Published("multiply-adds", 300e6, 1e6, PAPER, lambda net: net.multiply_adds),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
