"""AlexNet, in two groups as it was trained on two GPUs (Krizhevsky, Sutskever and Hinton 2012).

Local response normalisation, which has no parameters, is left out.
"""

from network import Network, Published
from program import main


def build(size: int = 227, head: bool = True) -> Network:
    """227 is the size from which an 11x11 kernel at stride 4 makes the 55 cells that the paper has."""
    net = Network("AlexNet", (3, size, size))
    x = net.conv(0, 96, 11, stride=4, name="conv1")
    x = net.pool(x, "max_pool", 3, 2, name="pool1")
    x = net.conv(x, 256, 5, padding=2, groups=2, name="conv2")
    x = net.pool(x, "max_pool", 3, 2, name="pool2")
    x = net.conv(x, 384, 3, padding=1, name="conv3")
    x = net.conv(x, 384, 3, padding=1, groups=2, name="conv4")
    x = net.conv(x, 256, 3, padding=1, groups=2, name="conv5")
    x = net.pool(x, "max_pool", 3, 2, name="pool5")
    if head:
        x = net.conv(x, 4096, 6, name="fc6")
        x = net.conv(x, 4096, 1, name="fc7")
        net.conv(x, 1000, 1, activation=None, name="fc8")
    return net


PAPER = "Krizhevsky et al. 2012"
PUBLISHED = [
    Published("parameters", 60e6, 1e6, f"{PAPER}, section 1", lambda net: net.parameters),
    Published(
        "receptive field", 195, 0, "Araujo et al. 2019, Distill, table of networks", lambda net: net.field("pool5")
    ),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
