"""VGG-16 (Simonyan and Zisserman 2015, configuration D): 3x3 convolutions alone."""

from network import Network, Published
from program import main

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def build(size: int = 224, head: bool = True) -> Network:
    net, x = Network("VGG-16", (3, size, size)), 0
    for stage, (channels, depth) in enumerate(STAGES, start=1):
        for layer in range(1, depth + 1):
            x = net.conv(x, channels, 3, padding=1, name=f"conv{stage}_{layer}")
        x = net.pool(x, "max_pool", 2, 2, name=f"pool{stage}")
    if head:
        x = net.conv(x, 4096, 7, name="fc6")
        x = net.conv(x, 4096, 1, name="fc7")
        net.conv(x, 1000, 1, activation=None, name="fc8")
    return net


PUBLISHED = [
    Published("parameters", 138e6, 1e6, "Simonyan and Zisserman 2015, Table 2", lambda net: net.parameters),
    Published(
        "receptive field", 212, 0, "Araujo et al. 2019, Distill, table of networks", lambda net: net.field("pool5")
    ),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
