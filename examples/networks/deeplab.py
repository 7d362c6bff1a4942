"""DeepLab on VGG-16: dilated 3x3 convolutions at four rates over the same maps, ASPP (Chen et al. 2018).

With the rate 12 alone it is DeepLab-LargeFOV (Chen et al. 2015), whose parameters are published.
"""

from network import Network, Published
from program import main
from vgg16 import STAGES


def build(size: int = 321, rates: tuple[int, ...] = (6, 12, 18, 24), classes: int = 21) -> Network:
    """Scores for each of ``size`` x ``size`` pixels; a size of 8 n + 1 aligns the corners of the maps."""
    net, x = Network(f"DeepLab, rates {', '.join(map(str, rates))}", (3, size, size)), 0
    for stage, (channels, depth) in enumerate(STAGES, start=1):
        step = 2 if stage == 5 else 1  # the last two pools keep the extents, dilation keeps the field of view
        for layer in range(1, depth + 1):
            x = net.conv(x, channels, 3, padding=step, dilation=step, name=f"conv{stage}_{layer}")
        x = net.pool(x, "max_pool", 3, 2 if stage < 4 else 1, (1, 1), name=f"pool{stage}")
    total = None
    for rate in rates:
        y = net.conv(x, 1024, 3, padding=rate, dilation=rate, name=f"fc6_{rate}")
        y = net.conv(y, 1024, 1, name=f"fc7_{rate}")
        total = net.conv(y, classes, 1, activation=None, residual=total, name=f"fc8_{rate}")
    assert total is not None
    net.resize(total, size, "scores")
    return net


PUBLISHED = [
    Published(
        "parameters of LargeFOV",
        20.5e6,
        0.05e6,
        "Chen et al. 2015, Table 2",
        lambda net: build(rates=(12,)).parameters,
    ),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
