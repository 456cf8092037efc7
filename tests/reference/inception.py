"""Inception3D in plain PyTorch: what the network of `jax_video.models` is compared with.

Written from the paper, without a line in common with the library. Channels first: a video is [B, 3, T, H, W].

    Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017
"""

import torch
import torch.nn.functional as F
from torch import nn


def same(x, kernel_size, stride, value):
    """Pads as TensorFlow does for "SAME": the output has ceil(size / stride) places; an odd place comes last."""
    margins = []
    for size, kernel, step in reversed(list(zip(x.shape[2:], kernel_size, stride, strict=True))):
        # The last window starts at the last multiple of the stride inside and must fit.
        last = (size - 1) // step * step
        missing = max(0, last + kernel - size)
        margins += [missing // 2, missing - missing // 2]
    return F.pad(x, margins, value=value)


MIXED = [  # 1×1×1, then 1×1×1 and 3×3×3 twice, then the 1×1×1 after the pool: 3b and 3c, 4b to 4f, 5b and 5c
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
]


class Unit3D(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, in_channels, out_channels, kernel=1, stride=1):
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3)

    def forward(self, x):
        x = same(x, self.conv3d.kernel_size, self.conv3d.stride, 0.0)
        return F.relu(self.bn(self.conv3d(x)))


class MaxPool(nn.Module):
    def __init__(self, kernel, stride):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x):
        return F.max_pool3d(same(x, self.kernel, self.stride, -torch.inf), self.kernel, self.stride)


class InceptionModule(nn.Module):
    def __init__(self, in_channels, b0, b1a, b1b, b2a, b2b, b3b):
        super().__init__()
        self.b0 = Unit3D(in_channels, b0)
        self.b1a, self.b1b = Unit3D(in_channels, b1a), Unit3D(b1a, b1b, 3)
        self.b2a, self.b2b = Unit3D(in_channels, b2a), Unit3D(b2a, b2b, 3)
        self.b3a, self.b3b = MaxPool((3, 3, 3), (1, 1, 1)), Unit3D(in_channels, b3b)
        self.out_channels = b0 + b1b + b2b + b3b

    def forward(self, x):
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class I3D(nn.Module):
    """The RGB stream of I3D (Figure 3), logits averaged over the windows of the average pool.

    `layers` keeps the first mixed blocks of the three stages and `width` multiplies every width, for small networks.
    """

    def __init__(self, num_classes, *, width=1.0, layers=(2, 5, 2)):
        super().__init__()

        def scale(*channels):
            return [round(width * c) for c in channels]

        stem1, stem2, stem3 = scale(64, 64, 192)
        self.Conv3d_1a_7x7 = Unit3D(3, stem1, 7, 2)
        self.MaxPool3d_2a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(stem1, stem2)
        self.Conv3d_2c_3x3 = Unit3D(stem2, stem3, 3)
        self.MaxPool3d_3a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        channels = self.add_stage("3", layers[0], stem3, scale, MIXED[:2])
        self.MaxPool3d_4a_3x3 = MaxPool((3, 3, 3), (2, 2, 2))
        channels = self.add_stage("4", layers[1], channels, scale, MIXED[2:7])
        self.MaxPool3d_5a_2x2 = MaxPool((2, 2, 2), (2, 2, 2))
        channels = self.add_stage("5", layers[2], channels, scale, MIXED[7:])
        self.logits = nn.Linear(channels, num_classes)  # the 1×1×1 convolution of the figure

    def add_stage(self, number, blocks, channels, scale, widths):
        for letter, branches in zip("bcdef"[:blocks], widths, strict=False):
            block = InceptionModule(channels, *scale(*branches))
            self.add_module(f"Mixed_{number}{letter}", block)
            channels = block.out_channels
        return channels

    def forward(self, video):  # [N, 3, T, H, W] to [N, K]
        x = video
        for name, layer in self.named_children():
            if name != "logits":
                x = layer(x)
        window = [min(kernel, size) for kernel, size in zip((2, 7, 7), x.shape[2:], strict=True)]
        x = F.avg_pool3d(x, window, stride=1)
        scores = self.logits(x.movedim(1, -1))  # [N, T', H', W', K]: of every window
        return scores.flatten(1, 3).mean(dim=1)


def build(num_classes, **options):
    """The reference of `jax_video.models.build("inception3d")`."""
    return I3D(num_classes, **options)
