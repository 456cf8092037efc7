"""CoST (Li et al., CVPR 2019, "Collaborative spatiotemporal feature learning"), and its baselines C2D and C3D.

    python -m jax_video.main --config=configs/cost.py:data=DIR,imagenet=resnet50.pth

trains CoST(b) with ResNet-50 on the set that `prepare` wrote into DIR, from torchvision's ImageNet weights, with the
paper's settings: 8 of 64 frames at 224², batch 32 with BN over 8 clips, 600,000 steps. It takes 2.6 of 16 GiB on each
of eight TPU v5e (`python -m jax_video.plan`). `recipe=code` has the schedule, gradient clipping and pools of the
authors' later code: batch 64, 160 epochs for Kinetics; `recipe=code_moments` has 48 epochs, for Moments in Time. Tests
see whole frames; `--config.test.crop=three` gives them the three squares of the authors' code. `start=RUN` trains a
network of 32 frames, with frozen BatchNorm, from the run of one of 8 frames.

Arguments: model, data, frames (8 or 32), span (frames of the video that a clip is taken from), share_weights (Table 3),
recipe (paper, code or code_moments), imagenet (a weight file of torchvision's network of the same depth, to start
from), start, epochs (in place of the paper's steps; the rate drops at the same shares of the run), micro_batch (videos
on the devices at once).

Paper, top-1 / top-5 (ours: not yet run):

    Moments in Time   model=c2d_resnet50  27.9 / 54.6         model=c3d_3x1x1_resnet50  29.0 / 55.3
                      model=cost_a_resnet50  29.3 / 55.8      model=cost_b_resnet50  30.1 / 57.2
                      model=cost_b_resnet50,share_weights=false  29.0 / 56.1
                      model=c2d_resnet101  30.0 / 56.8        model=c3d_3x1x1_resnet101  30.6 / 57.7
                      model=cost_b_resnet101  31.5 / 57.9
                      model=cost_b_resnet101,frames=32,start=RUN  32.4 / 60.0
    Kinetics-400      model=c2d_resnet50  71.5 / 89.8         model=c3d_3x1x1_resnet50  73.3 / 90.4
                      model=cost_a_resnet50  73.6 / 90.8      model=cost_b_resnet50  74.1 / 91.2
                      model=cost_b_resnet50,share_weights=false  73.2 / 90.2
                      model=c2d_resnet101  72.9 / 89.8        model=c3d_3x1x1_resnet101  74.5 / 91.1
                      model=cost_b_resnet101  75.5 / 92.0
                      model=cost_b_resnet101,frames=32,span=128,start=RUN  77.5 / 93.2

--mode=views measures how much each view counts in a trained CoST (§4.5; Figures 7 and 8). Paper, H-W / T-W / T-H:
Moments in Time .67 / .14 / .19, Kinetics .77 / .08 / .15.
"""

from typing import Any

from ml_collections import ConfigDict

from jax_video import networks, recipe

ARGUMENTS = {
    "model": "cost_b_resnet50",
    "data": "data",
    "frames": 8,
    "span": 64,
    "share_weights": True,
    "recipe": "paper",
    "imagenet": str,
    "start": str,
    "epochs": int,
    "micro_batch": int,
}
# The schedules of CoST §4.1, and of the authors' later code for Kinetics and for Moments in Time.
TRAINING: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "train": {"batch": 32, "steps": 600_000},
        "schedule": {"learning_rate": 0.005, "drop_steps": (300_000, 450_000)},
    },
    "code": {
        "train": {"batch": 64, "epochs": 160},
        "schedule": {"learning_rate": 0.01, "drop_epochs": (80, 120)},
    },
    "code_moments": {
        "train": {"batch": 64, "epochs": 48},
        "schedule": {"learning_rate": 0.01, "drop_epochs": (24, 36)},
    },
}


def get_config(argument: str = "") -> ConfigDict:
    given = recipe.arguments(argument, **ARGUMENTS)
    if given.recipe not in TRAINING:
        raise ValueError(f"unknown recipe {given.recipe!r}: expected paper, code or code_moments.")
    if given.start and (given.imagenet or given.frames != 32):
        raise ValueError("start=RUN is for frames=32, from the run of an 8-frame network, and takes no imagenet.")
    network = networks.find(given.model)
    if not given.share_weights and not network.weighs_views:
        raise ValueError(f"share_weights is of CoST's three views, which {given.model} has not.")
    paper, training = given.recipe == "paper", TRAINING[given.recipe]
    config = recipe.config(
        model={"name": given.model, "width": 1.0, "dropout": 0.5},
        clip={
            "frames": given.frames,
            "stride": given.span // given.frames,
            "short_side": 256,
            "jitter": (256, 320),
            "size": 224,
            "crop": "random",
            "flip": None,  # mirrors half of the clips, unless the set forbids it
        },
        norm={"group_size": 8},
        data={"manifest": given.data},
        train={**training["train"], "micro_batch": given.micro_batch},
        optimizer={
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 1e-4,
            "decay_norm": True,
            "clip_norm": 0.0 if paper else 40.0,
        },
        schedule={"kind": "step", **training["schedule"]},
        test={
            "clips": "uniform",
            "number": 10,
            "crop": "full",
            "flip": False,
            "average_clips": "probability",
            "batch": 8,
        },
    )
    config.model.update(network.clip_keywords(given.frames, config.clip.size))
    if "pool" in network.keywords:
        config.model.pool = "paper" if paper else "code"
    if network.weighs_views:
        config.model.share_weights = given.share_weights
    if given.imagenet:
        config.init_from.update(path=given.imagenet, layout="torchvision", inflate="mean", new_head=True)
        config.init_from.skip = network.own
    if given.start:  # our choices, except the frozen BatchNorm: CoST §4.2 says no more
        config.init_from.update(path=given.start, expects=given.model, inflate="mean")  # the stem's 5 taps
        config.norm.update(frozen=True, group_size=None)
        config.train.update(steps=100_000, epochs=None)
        config.schedule.update(learning_rate=0.0005, drop_steps=(), drop_epochs=())
    if given.epochs:
        recipe.train_epochs(config, given.epochs)
    return config
