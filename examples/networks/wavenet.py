"""WaveNet: causal dilated convolutions with gates, what each layer passes on summed up (van den Oord et al. 2016)."""

from network import Network, Published
from program import main

DILATIONS = tuple(2**power for power in range(10))


def build(samples: int = 16000, blocks: int = 3, channels: int = 32, skip: int = 128, levels: int = 256) -> Network:
    """One second of sound at 16 kHz, each sample one of ``levels`` values, one hot; the paper gives no channels."""
    net = Network(f"WaveNet, {blocks} blocks", (levels, samples))
    x, total = net.conv(0, channels, 2, padding="causal", activation=None, name="causal"), None
    for block in range(1, blocks + 1):
        for dilation in DILATIONS:
            name = f"{block}.{dilation}"
            y = net.conv(
                x, 2 * channels, 2, padding="causal", dilation=dilation, activation=None, name=f"{name}/dilated"
            )
            y = net.gate(y, f"{name}/gate")
            last = block == blocks and dilation == DILATIONS[-1]
            activation = "relu" if last else None  # of the sum, before the output layers
            total = net.conv(y, skip, 1, activation=activation, residual=total, name=f"{name}/skip")
            if not last:
                x = net.conv(y, channels, 1, activation=None, residual=x, name=f"{name}/residual")
    assert total is not None
    x = net.conv(total, levels, 1, name="out1")
    net.conv(x, levels, 1, activation=None, name="out2")
    return net


def _block(net: Network) -> float:
    """What one block adds to the field, and the cell itself."""
    return net.field("1.512/dilated") - net.field("causal") + 1


PUBLISHED = [
    Published("receptive field of a block", 1024, 0, "van den Oord et al. 2016, section 2.1", _block),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
