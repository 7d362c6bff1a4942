"""DCGAN's generator: 100 numbers become an image through transposed convolutions (Radford, Metz and Chintala 2016)."""

from network import Network, Published
from program import main


def build(width: int = 1024) -> Network:
    net = Network("DCGAN generator", (100, 1, 1))
    x = net.conv(0, width, 4, transposed=True, name="project")
    for number, channels in enumerate((width // 2, width // 4, width // 8), start=1):
        x = net.conv(x, channels, 5, stride=2, padding="same", transposed=True, name=f"conv{number}")
    net.conv(x, 3, 5, stride=2, padding="same", activation="tanh", transposed=True, name="conv4")
    return net


FIGURE = "Radford et al. 2016, Figure 1"
PUBLISHED = [
    Published(f"channels of {name}", channels, 0, FIGURE, lambda net, name=name: net.named(name).shape[0])
    for name, channels in (("project", 1024), ("conv1", 512), ("conv2", 256), ("conv3", 128), ("conv4", 3))
] + [
    Published(f"extent of {name}", extent, 0, FIGURE, lambda net, name=name: net.named(name).shape[1])
    for name, extent in (("project", 4), ("conv1", 8), ("conv2", 16), ("conv3", 32), ("conv4", 64))
]

if __name__ == "__main__":
    main(build, PUBLISHED)
