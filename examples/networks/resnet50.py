"""ResNet-50 (He, Zhang, Ren and Sun 2016), strides in the first 1x1 convolution of a stage, as in the paper."""

from network import Network, Published
from program import main

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def build(size: int = 224, groups: int = 1, width: int = 64, late_stride: bool = False) -> Network:
    """Bottlenecks of ``width`` channels in the first stage, twice as many in each later one.

    ``late_stride`` puts a stage's stride into the 3x3 convolution.
    """
    net = Network("ResNet-50" if groups == 1 else f"ResNeXt-50 ({groups}x{width // groups}d)", (3, size, size))
    x = net.conv(0, 64, 7, stride=2, padding=3, name="conv1")
    x = net.pool(x, "max_pool", 3, 2, (1, 1), name="pool1")
    for stage, (channels, depth) in enumerate(STAGES):
        inner = width << stage
        for unit in range(depth):
            name, stride = f"conv{stage + 2}_{unit + 1}", 2 if stage and not unit else 1
            first, second = (1, stride) if late_stride else (stride, 1)
            y = net.conv(x, inner, 1, stride=first, name=f"{name}/a")
            y = net.conv(y, inner, 3, stride=second, padding=1, groups=groups, name=f"{name}/b")
            if not unit:
                x = net.conv(x, 4 * channels, 1, stride=stride, activation=None, name=f"{name}/shortcut")
            x = net.conv(y, 4 * channels, 1, residual=x, name=f"{name}/c")
    x = net.global_pool(x)
    net.conv(x, 1000, 1, activation=None, name="classifier")
    return net


PUBLISHED = [
    Published("multiply-adds", 3.8e9, 0.1e9, "He et al. 2016, Table 1", lambda net: net.multiply_adds),
    Published("parameters", 25.5e6, 0.1e6, "Xie et al. 2017, Table 1", lambda net: net.parameters),
    Published(
        "receptive field", 483, 0, "Araujo et al. 2019, Distill, table of networks", lambda net: net.field("conv5_3/c")
    ),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
