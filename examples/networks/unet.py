"""U-Net: down four times and up again, maps of each level copied across (Ronneberger, Fischer and Brox 2015)."""

from network import Network, Published
from program import main


def build(size: int = 572, width: int = 64, classes: int = 2) -> Network:
    """No convolution is padded, so that 572 cells become 388, as in Figure 1 of the paper."""
    net, x, across = Network("U-Net", (1, size, size)), 0, []
    for level in range(5):
        x = net.conv(x, width << level, 3, name=f"down{level}/a")
        x = net.conv(x, width << level, 3, name=f"down{level}/b")
        if level < 4:
            across.append(x)
            x = net.pool(x, "max_pool", 2, 2, name=f"pool{level}")
    for level in range(3, -1, -1):
        x = net.conv(x, width << level, 2, stride=2, activation=None, transposed=True, name=f"up{level}")
        extent = net.steps[x].shape[1]
        x = net.concat([net.crop(across[level], extent, f"crop{level}"), x], f"concat{level}")
        x = net.conv(x, width << level, 3, name=f"up{level}/a")
        x = net.conv(x, width << level, 3, name=f"up{level}/b")
    net.conv(x, classes, 1, activation=None, name="classes")
    return net


FIGURE = "Ronneberger et al. 2015, Figure 1"
PUBLISHED = [
    Published("extent of the output", 388, 0, FIGURE, lambda net: net.steps[-1].shape[1]),
    Published("extent at the bottom", 28, 0, FIGURE, lambda net: net.named("down4/b").shape[1]),
    Published(
        "convolutional layers",
        23,
        0,
        "Ronneberger et al. 2015, section 2",
        lambda net: sum(step.plan is not None for step in net.steps),
    ),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
