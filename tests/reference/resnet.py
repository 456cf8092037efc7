"""3D-ResNet, 3D-ResNeXt and STC-Net in plain PyTorch: what the networks of `jax_video.models` are compared with.

Written from the papers, without a line in common with the library. Channels first: a video is [B, 3, T, H, W].

    Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", CVPR 2018 (networks)
    Diba et al., "Spatio-Temporal Channel Correlation Networks for Action Classification", ECCV 2018 (STC block)
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = (64, 128, 256, 512)
UNITS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


def conv3d(in_channels, out_channels, kernel_size, stride=1, groups=1):
    """A convolution without bias whose padding keeps the size at stride 1."""
    return nn.Conv3d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )


class Bottleneck2FC(nn.Module):
    """FC, ReLU, FC, sigmoid: squeezed features [N, in_features] to one scale per channel [N, channels]."""

    def __init__(self, in_features, hidden, channels):
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, squeezed):
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))


class STC(nn.Module):
    """STC block (STC §3.1): rescales channels by correlations over space-time (TCB) and over space per frame (SCB)."""

    def __init__(self, channels, hidden, frames, branches="both"):
        super().__init__()
        self.tcb = Bottleneck2FC(channels, hidden, channels) if branches in ("both", "tcb") else None
        self.scb = Bottleneck2FC(frames * channels, frames * hidden, channels) if branches in ("both", "scb") else None

    def forward(self, x):  # [N, C, T, H, W]
        rescaled = []
        if self.tcb is not None:
            scale = self.tcb(x.mean(dim=(2, 3, 4)))  # equation 1
            rescaled.append(x * scale[:, :, None, None, None])  # equation 3
        if self.scb is not None:
            per_frame = x.mean(dim=(3, 4))  # [N, C, T], equation 4
            scale = self.scb(per_frame.transpose(1, 2).flatten(1))  # the T·C features in the order (t, c)
            rescaled.append(x * scale[:, :, None, None, None])  # equation 6
        return sum(rescaled) / len(rescaled)  # equation 7


class PaddedShortcut(nn.Module):
    """Shortcut A: every stride-th position, new channels are zero."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.new_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.new_channels))


def make_shortcut(in_channels, out_channels, stride, kind):
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "A":
        return PaddedShortcut(in_channels, out_channels, stride)
    return nn.Sequential(conv3d(in_channels, out_channels, 1, stride), nn.BatchNorm3d(out_channels))


class BasicUnit(nn.Module):
    """Two 3×3×3 convolutions."""

    def __init__(self, in_channels, width, stride=1, *, shortcut="B", preactivation=False, stc=None):
        super().__init__()
        self.preactivation = preactivation
        self.conv1 = conv3d(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm3d(in_channels if preactivation else width)
        self.conv2 = conv3d(width, width, 3)
        self.bn2 = nn.BatchNorm3d(width)
        self.downsample = make_shortcut(in_channels, width, stride, shortcut)
        self.stc = nn.Identity() if stc is None else stc

    def forward(self, x):
        if self.preactivation:
            out = self.conv1(F.relu(self.bn1(x)))
            out = self.conv2(F.relu(self.bn2(out)))
            return self.stc(out) + self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(self.stc(out) + self.downsample(x))


class BottleneckUnit(nn.Module):
    """1×1×1 to `mid` channels, 3×3×3 in `cardinality` groups, 1×1×1 to `out_channels`."""

    def __init__(
        self,
        in_channels,
        mid,
        out_channels,
        stride=1,
        *,
        cardinality=1,
        shortcut="B",
        preactivation=False,
        stc=None,
    ):
        super().__init__()
        self.preactivation = preactivation
        self.conv1 = conv3d(in_channels, mid, 1)
        self.bn1 = nn.BatchNorm3d(in_channels if preactivation else mid)
        self.conv2 = conv3d(mid, mid, 3, stride, groups=cardinality)
        self.bn2 = nn.BatchNorm3d(mid)
        self.conv3 = conv3d(mid, out_channels, 1)
        self.bn3 = nn.BatchNorm3d(mid if preactivation else out_channels)
        self.downsample = make_shortcut(in_channels, out_channels, stride, shortcut)
        self.stc = nn.Identity() if stc is None else stc

    def forward(self, x):
        if self.preactivation:
            out = self.conv1(F.relu(self.bn1(x)))
            out = self.conv2(F.relu(self.bn2(out)))
            out = self.conv3(F.relu(self.bn3(out)))
            return self.stc(out) + self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(self.stc(out) + self.downsample(x))


class ResNet3D(nn.Module):
    """3D-ResNet of a depth; `resnext` makes it a 3D-ResNeXt, `stc` puts an STC block into every unit.

    `layers` overrides the units per stage and `width` multiplies every width, both for small networks.
    """

    def __init__(
        self,
        depth,
        num_classes,
        *,
        resnext=False,
        stc=False,
        width=1.0,
        layers=None,
        stem="hara",
        shortcut="B",
        preactivation=False,
        frames=16,
        branches="both",
        reduction=4,
    ):
        super().__init__()
        channels = round(64 * width)
        conv_strides, pool_strides = {"hara": ((1, 2, 2), 2), "table1": (2, (1, 2, 2))}[stem]
        self.conv1 = nn.Conv3d(3, channels, 7, conv_strides, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.maxpool = nn.MaxPool3d(3, pool_strides, padding=1)

        frames = math.ceil(frames / 2)  # after the stem: every stride of 2 keeps ceil(T / 2) frames
        for stage, units in enumerate(UNITS[depth] if layers is None else layers):
            stage_width = round(WIDTHS[stage] * width)
            frames = frames if stage == 0 else math.ceil(frames / 2)
            sequence = []
            for unit in range(units):
                stride = 2 if stage > 0 and unit == 0 else 1
                out_channels = stage_width if depth < 50 else 4 * stage_width
                options = {"shortcut": shortcut, "preactivation": preactivation}
                if stc:
                    options["stc"] = STC(out_channels, stage_width // reduction, frames, branches)
                if depth < 50:
                    sequence.append(BasicUnit(channels, stage_width, stride, **options))
                elif resnext:
                    mid = 2 * stage_width
                    sequence.append(BottleneckUnit(channels, mid, out_channels, stride, cardinality=32, **options))
                else:
                    sequence.append(BottleneckUnit(channels, stage_width, out_channels, stride, **options))
                channels = out_channels
            self.add_module(f"layer{stage + 1}", nn.Sequential(*sequence))
        self.fc = nn.Linear(channels, num_classes)

        for name, module in self.named_modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                if name == "fc":
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def features(self, video):  # [N, 3, T, H, W] to [N, D, T', H', W']
        x = self.maxpool(F.relu(self.bn1(self.conv1(video))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, video):  # [N, 3, T, H, W] to [N, K]
        return self.fc(self.features(video).mean(dim=(2, 3, 4)))


NETWORKS = {
    **{f"resnet3d{depth}": {"depth": depth} for depth in UNITS},
    "resnext3d101": {"depth": 101, "resnext": True},
    **{f"stc_resnet{depth}": {"depth": depth, "stc": True} for depth in (18, 50, 101)},
    "stc_resnext101": {"depth": 101, "resnext": True, "stc": True},
}


def build(name, num_classes, **options):
    """The reference of the network that `jax_video.models.build` makes of the same name."""
    return ResNet3D(num_classes=num_classes, **NETWORKS[name], **options)
