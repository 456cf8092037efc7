"""2D ResNet, ResNeXt, C2D, C3D and CoST in plain PyTorch: what the networks of `jax_video.models` are compared with.

Written from the papers, without a line in common with the library. Channels first: a video is [B, 3, T, H, W].

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016
    Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017
    Li et al., "Collaborative Spatiotemporal Feature Learning for Video Action Recognition", CVPR 2019
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def conv(in_channels, out_channels, t, k, stride=1, groups=1):
    """A t×k×k convolution, padded to keep the size, strided in space only."""
    return nn.Conv3d(
        in_channels,
        out_channels,
        (t, k, k),
        stride=(1, stride, stride),
        padding=(t // 2, k // 2, k // 2),
        groups=groups,
        bias=False,
    )


class CoST(nn.Module):
    """Three views of a clip, each convolved with a 2D kernel, in a weighted sum (CoST §3.2)."""

    def __init__(self, in_channels, channels, stride, *, kind, k=3, share_weights=True):
        super().__init__()
        self.k, self.stride = k, stride
        scale = math.sqrt(2 / (channels * k * k))
        self.weight = nn.Parameter(scale * torch.randn(1 if share_weights else 3, channels, in_channels, k, k))
        self.OURS = {"weight": ("kernel", (0, 3, 4, 2, 1))}
        if kind == "cost_a":
            self.alpha = nn.Parameter(torch.tensor([[0.7], [-0.7], [-0.7]]).repeat(1, channels))
            self.OURS["alpha"] = ("alpha", (0, 1))
        else:
            self.fc1 = nn.Linear(channels, channels, bias=False)
            self.fc2 = nn.Linear(3, 3, bias=False)

    def forward(self, x):
        kernels = self.weight.expand(3, *self.weight.shape[1:])
        p, stride = self.k // 2, (1, self.stride, self.stride)
        x_hw = F.conv3d(x, kernels[0].unsqueeze(2), stride=stride, padding=(0, p, p))  # [O, I, 1, k, k]
        x_tw = F.conv3d(x, kernels[1].unsqueeze(3), stride=stride, padding=(p, 0, p))  # [O, I, k, 1, k]
        x_th = F.conv3d(x, kernels[2].unsqueeze(4), stride=stride, padding=(p, p, 0))  # [O, I, k, k, 1]
        stacked = torch.stack([x_hw, x_tw, x_th])  # [3, B, C, T, H, W]
        return (self.coefficients(stacked)[..., None, None, None] * stacked).sum(0)

    def coefficients(self, stacked):
        """[3, B or 1, C]"""
        if hasattr(self, "alpha"):
            return torch.softmax(self.alpha, dim=0)[:, None]
        pooled = stacked.amax(dim=(3, 4, 5))  # [3, B, C]
        across_channels = self.fc1(pooled).permute(1, 2, 0)  # [B, C, 3]
        return torch.softmax(self.fc2(across_channels), dim=-1).permute(2, 0, 1)


class Shortcut(nn.Module):
    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.conv = conv(in_channels, channels, 1, 1, stride)
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x):
        return self.bn(self.conv(x))


class BasicUnit(nn.Module):
    """Two 3×3 convolutions (He et al., figure 5, left)."""

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.conv1 = conv(in_channels, channels, 1, 3, stride)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = conv(channels, channels, 1, 3)
        self.bn2 = nn.BatchNorm3d(channels)
        changes = stride != 1 or in_channels != channels
        self.downsample = Shortcut(in_channels, channels, stride) if changes else nn.Identity()

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class Unit(nn.Module):
    """A bottleneck; `middle` replaces its 3×3 convolution, `taps` gives the three a temporal extent."""

    def __init__(self, in_channels, mid, channels, stride=1, *, taps=(1, 1, 1), groups=1, middle=None, stride_on="3x3"):
        super().__init__()
        strides = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = conv(in_channels, mid, taps[0], 1, strides[0])
        self.bn1 = nn.BatchNorm3d(mid)
        self.conv2 = conv(mid, mid, taps[1], 3, strides[1], groups) if middle is None else middle
        self.bn2 = nn.BatchNorm3d(mid)
        self.conv3 = conv(mid, channels, taps[2], 1)
        self.bn3 = nn.BatchNorm3d(channels)
        changes = stride != 1 or in_channels != channels
        self.downsample = Shortcut(in_channels, channels, stride) if changes else nn.Identity()

    def branch(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))

    def forward(self, x):
        return F.relu(self.branch(x) + self.downsample(x))


class Net(nn.Module):
    """`kind` None is the 2D network; the others convert every second unit (CoST §3.1 and Table 1)."""

    def __init__(
        self,
        depth,
        num_classes,
        *,
        kind=None,
        frames=8,
        stem="5x7x7",
        pool="paper",
        kernel_size=3,
        share_weights=True,
        groups=1,
        group_width=64,
        layers=None,
        width=1.0,
        stride_on="3x3",
        dropout=0.0,
    ):
        super().__init__()
        assert dropout == 0.0
        channels = round(64 * width)
        slow = 2 if frames == 32 else 1
        taps = 5 if frames == 32 and stem == "5x7x7" else 1
        self.conv1 = nn.Conv3d(3, channels, (taps, 7, 7), (slow, 2, 2), padding=(taps // 2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        after = None
        if kind is None:
            first = nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1))
        elif pool == "code":
            first = nn.MaxPool3d((slow, 3, 3), (slow, 2, 2), padding=(0, 1, 1))
            after = nn.MaxPool3d((2, 1, 1), (2, 1, 1))
        else:
            first = nn.MaxPool3d(3, (slow, 2, 2), padding=1)
            after = nn.MaxPool3d((3, 1, 1), (2, 1, 1), padding=(1, 0, 0))
        self.pools = {"first": first, "after": after}

        number = 0
        for stage, count in enumerate(UNITS[depth] if layers is None else layers):
            planes = round(64 * 2**stage * width)
            mid = groups * max(1, planes * group_width // 64)
            units = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                if depth < 50:
                    units.append(BasicUnit(channels, planes, stride))
                    channels = planes
                    continue
                options = {"groups": groups, "stride_on": stride_on}
                if kind is not None and number % 2 == 1:
                    if kind == "c3d_3x1x1":
                        options["taps"] = (3, 1, 1)
                    elif kind == "c3d_3x3x3":
                        options["taps"] = (1, 3, 1)
                    elif kind != "c2d":
                        options["middle"] = CoST(
                            mid, mid, stride, kind=kind, k=kernel_size, share_weights=share_weights
                        )
                units.append(Unit(channels, mid, 4 * planes, stride, **options))
                channels = 4 * planes
                number += 1
            self.add_module(f"layer{stage + 1}", nn.Sequential(*units))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, video):
        x = self.layer1(self.pools["first"](F.relu(self.bn1(self.conv1(video)))))
        if self.pools["after"] is not None:
            x = self.pools["after"](x)
        x = self.layer4(self.layer3(self.layer2(x)))
        return self.fc(x.mean(dim=(2, 3, 4)))


NETWORKS = {
    **{f"resnet{depth}": {"depth": depth} for depth in UNITS},
    "resnext50": {"depth": 50, "groups": 32, "group_width": 4},
    "resnext101": {"depth": 101, "groups": 32, "group_width": 8},
    **{
        f"{kind}_resnet{depth}": {"depth": depth, "kind": kind}
        for kind in ("c2d", "c3d_3x1x1", "c3d_3x3x3", "cost_a", "cost_b")
        for depth in (50, 101)
    },
}


def build(name, num_classes, **options):
    """The reference of the network that `jax_video.models.build` makes of the same name."""
    return Net(num_classes=num_classes, **(NETWORKS[name] | options))
