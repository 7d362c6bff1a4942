"""MobileNet (Howard et al. 2017): depthwise and pointwise convolutions, a ReLU after each."""

from network import Network, Published
from program import main

#: Channels and stride of each depthwise-separable layer (Table 1 of the paper).
LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def build(size: int = 224) -> Network:
    net = Network("MobileNetV1", (3, size, size))
    x, taken = net.conv(0, 32, 3, stride=2, padding="same", name="conv1"), 32
    for number, (channels, stride) in enumerate(LAYERS, start=2):
        x = net.conv(x, taken, 3, stride=stride, padding="same", groups=taken, name=f"dw{number}")
        x = net.conv(x, channels, 1, name=f"pw{number}")
        taken = channels
    x = net.global_pool(x)
    net.conv(x, 1000, 1, activation=None, name="classifier")
    return net


PAPER = "Howard et al. 2017, Table 4"
PUBLISHED = [
    Published("parameters", 4.2e6, 0.1e6, PAPER, lambda net: net.parameters),
    Published("multiply-adds", 569e6, 1e6, PAPER, lambda net: net.multiply_adds),
    Published(
        "receptive field", 315, 0, "Araujo et al. 2019, Distill, table of networks", lambda net: net.field("pw14")
    ),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
