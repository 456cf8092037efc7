"""Knowledge transfer in plain PyTorch: what `jax_video.models.correspondence` is compared with.

Written from the papers, without a line in common with the library. Channels first: a video is [B, 3, T, H, W].

    Diba et al., "Spatio-Temporal Channel Correlation Networks for Action Classification", ECCV 2018, §3.2
    Diba et al., "Temporal 3D ConvNets", 2017, §3.2
"""

import torch
import torch.nn.functional as F
from torch import nn


class Correspondence(nn.Module):
    """Which pairs of frames and clip belong together? `source` says whose frames each clip meets as a negative pair."""

    def __init__(self, student, teacher, source):
        super().__init__()
        self.student, self.teacher, self.source = student, teacher.requires_grad_(False), source
        self.fc = nn.Linear(student.fc.in_features, 1024)
        self.fc1 = nn.Linear(1024 + teacher.fc.in_features, 512)
        self.fc2 = nn.Linear(512, 128)
        self.classifier = nn.Linear(128, 2)

    def train(self, mode=True):
        super().train(mode)
        self.teacher.eval()
        return self

    def classify(self, clip_features, frame_features):
        x = torch.cat([clip_features, frame_features], dim=1)
        return self.classifier(F.relu(self.fc2(F.relu(self.fc1(x)))))

    def forward(self, video):  # [N, 3, T, H, W] to twice [N, 2]: logits of the positive and of the negative pairs
        with torch.no_grad():
            frames = self.teacher.features(video).mean(dim=(2, 3, 4))
        # The student's own classifier has no part in it, but weight decay, which PyTorch gives to what has a gradient.
        unused = 0 * sum(parameter.sum() for parameter in self.student.fc.parameters())
        clips = self.fc(self.student.features(video).mean(dim=(2, 3, 4))) + unused
        return self.classify(clips, frames), self.classify(clips, frames[self.source])


def build(student, teacher, source):
    """The reference of `jax_video.models.correspondence.Correspondence`."""
    return Correspondence(student, teacher, source)
