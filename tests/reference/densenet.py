"""DenseNet in 2D and 3D and T3D in plain PyTorch: what the networks of `jax_video.models` are compared with.

Written from the papers, without a line in common with the library. Channels first: a video is [N, 3, T, H, W].

    Huang et al., "Densely Connected Convolutional Networks", CVPR 2017 (2D: dense layers, transitions, sizes)
    Diba et al., "Temporal 3D ConvNets", 2017 (DenseNet3D, T3D, temporal transition layer)
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32)}
CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
AVERAGE_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class DenseLayer(nn.Module):
    """H_l of equation 1 with a bottleneck: sees the maps of all earlier layers, gives `growth` new ones."""

    def __init__(self, channels, growth, axes):
        super().__init__()
        self.norm1 = NORM[axes](channels)
        self.conv1 = CONVOLUTION[axes](channels, 4 * growth, 1, bias=False)
        self.norm2 = NORM[axes](4 * growth)
        self.conv2 = CONVOLUTION[axes](4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, maps):
        x = self.conv1(F.relu(self.norm1(torch.cat(maps, dim=1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseBlock(nn.ModuleList):
    def __init__(self, count, channels, growth, axes):
        super().__init__(DenseLayer(channels + layer * growth, growth, axes) for layer in range(count))

    def forward(self, x):
        maps = [x]
        for layer in self:
            maps.append(layer(maps))
        return torch.cat(maps, dim=1)


class Transition(nn.Sequential):
    """Halves the channels, then every axis."""

    def __init__(self, channels, axes):
        super().__init__(
            OrderedDict(
                norm=NORM[axes](channels),
                relu=nn.ReLU(),
                conv=CONVOLUTION[axes](channels, channels // 2, 1, bias=False),
                pool=AVERAGE_POOL[axes](2, 2),
            )
        )
        self.out_channels = channels // 2


class TemporalTransition(nn.Module):
    """TTL (T3D §3.1): three temporal depths side by side, then the pool."""

    def __init__(self, channels, widths, depth):
        super().__init__()
        self.out_channels = sum(widths)
        self.branches = nn.ModuleList()
        for width, (temporal, spatial) in zip(widths, ((1, 1), (3, 3), (depth, 3)), strict=True):
            before = (temporal - 1) // 2
            after = temporal - 1 - before
            around = (spatial - 1) // 2
            self.branches.append(
                nn.Sequential(
                    OrderedDict(
                        norm=nn.BatchNorm3d(channels),
                        relu=nn.ReLU(),
                        pad=nn.ConstantPad3d((around, around, around, around, before, after), 0.0),
                        conv=nn.Conv3d(channels, width, (temporal, spatial, spatial), bias=False),
                    )
                )
            )

    def maps(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)

    def forward(self, x):
        return F.avg_pool3d(self.maps(x), 2, 2)


class DenseNet(nn.Module):
    """DenseNet3D, or with `axes=2` the 2D DenseNet on every frame; `ttl_channels` makes it a T3D.

    `layers` overrides the dense layers per block and `width` multiplies all channels, both for small networks.
    """

    def __init__(self, depth, num_classes, *, axes=3, ttl_channels=None, stem="t3d", layers=None, width=1.0):
        super().__init__()
        self.axes = axes
        growth, channels = round(32 * width), round(64 * width)
        if axes == 2:
            self.conv0 = nn.Conv2d(3, channels, 7, 2, padding=3, bias=False)
            self.pool0 = nn.MaxPool2d(3, 2, padding=1)
        elif stem == "t3d":
            self.conv0 = nn.Conv3d(3, channels, (3, 7, 7), 2, padding=(1, 3, 3), bias=False)
            self.pool0 = nn.MaxPool3d(3, (1, 2, 2), padding=1)
        else:
            self.conv0 = nn.Conv3d(3, channels, 7, (1, 2, 2), padding=3, bias=False)
            self.pool0 = nn.MaxPool3d(3, 2, padding=1)
        self.norm0 = NORM[axes](channels)

        for index, count in enumerate(BLOCKS[depth] if layers is None else layers):
            self.add_module(f"denseblock{index + 1}", DenseBlock(count, channels, growth, axes))
            channels += count * growth
            if index == 3:
                break
            if ttl_channels is None:
                transition = Transition(channels, axes)
            else:
                widths = [round(width * c) for c in ttl_channels]
                transition = TemporalTransition(channels, widths, (6, 4, 4)[index])
            self.add_module(f"transition{index + 1}", transition)
            channels = transition.out_channels
        self.norm5 = NORM[axes](channels)
        self.classifier = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, CONVOLUTION[axes]):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, x):
        x = self.pool0(F.relu(self.norm0(self.conv0(x))))
        x = self.transition1(self.denseblock1(x))
        x = self.transition2(self.denseblock2(x))
        x = self.transition3(self.denseblock3(x))
        return F.relu(self.norm5(self.denseblock4(x)))

    def forward(self, video):  # [N, 3, T, H, W] to [N, K]
        if self.axes == 3:
            return self.classifier(self.features(video).mean(dim=(2, 3, 4)))
        frames = video.transpose(1, 2).flatten(0, 1)  # [N T, 3, H, W]
        pooled = self.features(frames).mean(dim=(2, 3))
        return self.classifier(pooled.unflatten(0, video[:, 0].shape[:2]).mean(dim=1))


NETWORKS = {
    "densenet121": {"depth": 121, "axes": 2},
    "densenet169": {"depth": 169, "axes": 2},
    "densenet3d121": {"depth": 121},
    "densenet3d169": {"depth": 169},
    "t3d121": {"depth": 121, "ttl_channels": (48, 48, 48)},
    "t3d169": {"depth": 169, "ttl_channels": (48, 48, 48)},
}


def build(name, num_classes, **options):
    """The reference of the network that `jax_video.models.build` makes of the same name."""
    return DenseNet(num_classes=num_classes, **NETWORKS[name] | options)
