"""ResNeXt-50 (32x4d): ResNet-50 with 3x3 convolutions in 32 groups (Xie, Girshick, Dollar, Tu and He 2017)."""

from functools import partial

import resnet50
from network import Published
from program import main

#: A stage's stride is in its first 3x3 convolution (section 4 of the paper).
build = partial(resnet50.build, groups=32, width=128, late_stride=True)

PUBLISHED = [
    Published("parameters", 25.0e6, 0.1e6, "Xie et al. 2017, Table 1", lambda net: net.parameters),
    Published("multiply-adds", 4.2e9, 0.1e9, "Xie et al. 2017, Table 1", lambda net: net.multiply_adds),
]

if __name__ == "__main__":
    main(build, PUBLISHED)
