"""R3D-18, MC3-18 and R(2+1)D-18 in plain PyTorch, as torchvision describes them.

Written from the paper and from torchvision's documentation, without a line in common with the library. Channels first:
a video is [B, 3, T, H, W].

    Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018
"""

import torch.nn.functional as F
from torch import nn


def conv(inputs, outputs, kernel, stride=(1, 1, 1)):
    padding = tuple(taps // 2 for taps in kernel)
    return nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)


class Pair(nn.Module):
    """1×k×k to some channels, BN, ReLU, 3×1×1."""

    def __init__(self, inputs, between, outputs, stride):
        super().__init__()
        self.spatial = conv(inputs, between, (1, 3, 3), (1, stride, stride))
        self.bn = nn.BatchNorm3d(between)
        self.temporal = conv(between, outputs, (3, 1, 1), (stride, 1, 1))

    def forward(self, x):
        return self.temporal(F.relu(self.bn(self.spatial(x))))


class Unit(nn.Module):
    def __init__(self, kind, stage, inputs, outputs, stride):
        super().__init__()
        full = outputs * inputs * 3 * 3 * 3
        between = full // (inputs * 3 * 3 + 3 * outputs)
        steps = (stride, stride, stride)
        if kind == "mc3" and stage > 1:
            steps = (1, stride, stride)

        def layer(channels, stride, steps):
            if kind == "r2plus1d":
                return Pair(channels, between, outputs, stride)
            return conv(channels, outputs, (1 if kind == "mc3" and stage > 1 else 3, 3, 3), steps)

        self.conv1, self.bn1 = layer(inputs, stride, steps), nn.BatchNorm3d(outputs)
        self.conv2, self.bn2 = layer(outputs, 1, (1, 1, 1)), nn.BatchNorm3d(outputs)
        self.downsample = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, (1, 1, 1), steps), nn.BatchNorm3d(outputs))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class Stem(nn.Module):
    def __init__(self, kind, width):
        super().__init__()
        self.pair = kind == "r2plus1d"
        first = round(45 * width / 64) if self.pair else width
        self.conv1, self.bn1 = conv(3, first, (1 if self.pair else 3, 7, 7), (1, 2, 2)), nn.BatchNorm3d(first)
        if self.pair:
            self.conv2, self.bn2 = conv(first, width, (3, 1, 1)), nn.BatchNorm3d(width)

    def forward(self, video):
        x = F.relu(self.bn1(self.conv1(video)))
        return F.relu(self.bn2(self.conv2(x))) if self.pair else x


class VideoResNet(nn.Module):
    def __init__(self, kind, num_classes, layers=(2, 2, 2, 2), width=64):
        super().__init__()
        self.stem = Stem(kind, width)
        inputs = width
        for stage, count in enumerate(layers, 1):
            units, outputs = [], width * 2 ** (stage - 1)
            for number in range(count):
                units.append(Unit(kind, stage, inputs, outputs, 2 if stage > 1 and number == 0 else 1))
                inputs = outputs
            self.add_module(f"layer{stage}", nn.Sequential(*units))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, video):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(video)))))
        return self.fc(x.mean(dim=(2, 3, 4)))
