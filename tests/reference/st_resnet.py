"""Two streams, ST-ResNet and ST-ResNet* in plain PyTorch: what the networks of `jax_video.models` are compared with.

Written from Feichtenhofer et al., "Spatiotemporal Residual Networks for Video Action Recognition", NeurIPS 2016,
without a line in common with the library. Channels first: frames are [B, 3, T, H, W], stacks of flow [B, 20, T, H, W].
"""

import torch.nn.functional as F
from reference.cost import UNITS, Unit
from torch import nn


class Stream(nn.Module):
    def __init__(
        self,
        num_classes,
        channels=3,
        *,
        depth=50,
        temporal=False,
        temporal_pool="none",
        layers=None,
        width=1.0,
        stride_on="3x3",
    ):
        super().__init__()
        self.temporal_pool = temporal_pool
        features = round(64 * width)
        self.conv1 = nn.Conv3d(channels, features, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(features)
        for stage, count in enumerate(UNITS[depth] if layers is None else layers):
            planes = round(64 * 2**stage * width)
            units = nn.Sequential()
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                taps = (3, 1, 3) if temporal and index == 1 else (1, 1, 1)
                units.append(Unit(features, planes, 4 * planes, stride, taps=taps, stride_on=stride_on))
                features = 4 * planes
            self.add_module(f"layer{stage + 1}", units)
        self.fc = nn.Linear(features, num_classes)

    def stem(self, x):
        return F.max_pool3d(F.relu(self.bn1(self.conv1(x))), (1, 3, 3), (1, 2, 2), (0, 1, 1))

    def classify(self, x):
        """[B, D, T, H, W] to [B, K, T', h, w]"""
        if self.temporal_pool == "before":
            x = F.max_pool3d(x, (5, 1, 1), (2, 1, 1))
        x = F.avg_pool3d(x, (1, min(7, x.shape[3]), min(7, x.shape[4])), stride=1)
        if self.temporal_pool == "after":
            x = F.max_pool3d(x, (5, 1, 1), (2, 1, 1))
        return self.fc(x.movedim(1, -1)).movedim(-1, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.classify(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class TwoStreams(nn.Module):
    def __init__(self, num_classes, *, connections, flow_channels=20, **options):
        super().__init__()
        self.appearance = Stream(num_classes, 3, **options)
        self.motion = Stream(num_classes, flow_channels, **options)
        self.connections = connections

    def forward(self, rgb, flow):
        a, m = self.appearance.stem(rgb), self.motion.stem(flow)
        for stage in range(1, 5):
            appearance, motion = getattr(self.appearance, f"layer{stage}"), getattr(self.motion, f"layer{stage}")
            a_sum = appearance[0].branch(a) + appearance[0].downsample(a)  # x^a, before its ReLU
            m = motion[0](m)  # f(x^m)
            for number in range(1, len(appearance)):
                seen = F.relu(a_sum)
                if number == 1 and self.connections:
                    seen = a_sum + m
                a_sum = F.relu(a_sum) + appearance[number].branch(seen)  # equation 3
                m = motion[number](m)
            a = F.relu(a_sum)
        return self.appearance.classify(a), self.motion.classify(m)


def build(name, num_classes, **options):
    """The reference of the network that `jax_video.models.build` makes of the same name."""
    if name in ("appearance_stream", "motion_stream"):
        return Stream(num_classes, {"appearance_stream": 3, "motion_stream": 20}[name], **options)
    options = {"connections": name != "two_streams", "temporal": name != "two_streams"} | options
    if name == "st_resnet_star":
        options = {"temporal_pool": "after"} | options
    return TwoStreams(num_classes, **options)
