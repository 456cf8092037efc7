"""C3D with batch normalisation in plain PyTorch: what the network of `jax_video.models` is compared with.

Written from the paper, without a line in common with the library. Channels first: a video is [B, 3, T, H, W].

    Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015
"""

import torch.nn.functional as F
from torch import nn


class ConvBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm3d(out_channels)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class FCBlock(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.bn = nn.BatchNorm1d(out_features)

    def forward(self, x):
        return F.relu(self.bn(self.linear(x)))


class C3D(nn.Module):
    """Figure 3: eight convolutions, five pools, three fully connected layers; BN after all but the last."""

    def __init__(self, num_classes, *, frames=16, size=112, width=1.0):
        super().__init__()
        c64, c128, c256, c512, c4096 = (round(width * channels) for channels in (64, 128, 256, 512, 4096))
        self.conv1a = ConvBlock(3, c64)
        self.conv2a = ConvBlock(c64, c128)
        self.conv3a, self.conv3b = ConvBlock(c128, c256), ConvBlock(c256, c256)
        self.conv4a, self.conv4b = ConvBlock(c256, c512), ConvBlock(c512, c512)
        self.conv5a, self.conv5b = ConvBlock(c512, c512), ConvBlock(c512, c512)
        for _ in range(5):  # Caffe's pools round sizes up
            size = (size + 1) // 2
        for _ in range(4):
            frames = (frames + 1) // 2
        self.fc6 = FCBlock(c512 * frames * size * size, c4096)
        self.fc7 = FCBlock(c4096, c4096)
        self.fc8 = nn.Linear(c4096, num_classes)

    def forward(self, video):  # [N, 3, T, H, W] to [N, K]
        x = F.max_pool3d(self.conv1a(video), (1, 2, 2), ceil_mode=True)
        x = F.max_pool3d(self.conv2a(x), 2, ceil_mode=True)
        x = F.max_pool3d(self.conv3b(self.conv3a(x)), 2, ceil_mode=True)
        x = F.max_pool3d(self.conv4b(self.conv4a(x)), 2, ceil_mode=True)
        x = F.max_pool3d(self.conv5b(self.conv5a(x)), 2, ceil_mode=True)
        x = x.movedim(1, -1).flatten(1)  # the features in the order (t, h, w, c)
        return self.fc8(self.fc7(self.fc6(x)))


def build(num_classes, **options):
    """The reference of `jax_video.models.build("c3d")`."""
    return C3D(num_classes, **options)
