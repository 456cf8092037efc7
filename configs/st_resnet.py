"""Two streams, ST-ResNet and ST-ResNet* (Feichtenhofer et al., NeurIPS 2016), in four phases.

    python -m jax_video.prepare ucf101 --videos=UCF-101 --annotations=ucfTrainTestlist --out=DIR --flow=tvl1
    run() { python -m jax_video.main --config=configs/st_resnet.py:data=DIR,phase=$1 --workdir=runs/${1%%,*}; }
    run motion,imagenet=resnet50.pth
    run appearance,imagenet=resnet50.pth
    run joint,appearance=runs/appearance,motion=runs/motion
    run star,start=runs/joint

with the paper's settings: each stream starts from torchvision's ImageNet weights, ST-ResNet from both streams,
ST-ResNet* from ST-ResNet. A test is one pass over 25 frames of the whole video and their mirror images. Flow that
`prepare` has not stored is computed during training, which is slow. The scores of both streams are fused after their
tests, and so are those of ST-ResNet* and of improved dense trajectories (IDT):

    python -m jax_video.fuse runs/appearance runs/motion
    python -m jax_video.fuse runs/star idt.csv --l2

Arguments: phase (motion if not given), data, imagenet (torchvision's ResNet-50, a file), appearance, motion (runs),
start (the run before; for a stream, its run on another set, of which all but the classifier is loaded), group (videos
in a group of BatchNorm; the motion stream's 86 cannot be divided among 4 or 8 devices: take 64 there), micro_batch
(videos on the devices at once; by default what fits into the memory of one device), epochs (in place of the paper's
steps; the rate drops at the same shares of the run), recipe (small or paper; by default small on `motions` and paper on
every other set; small with --config.clip.flow_method and short_side as the flow was stored).

Paper, UCF101 / HMDB51, mean of three splits (ours: not yet run, except for `motions`, see benchmarks/RESULTS.md):

    phase=appearance   82.29 / 43.42        phase=motion             79.05 / 55.47
    phase=joint        92.76 / 65.57        phase=star               93.46 / 66.41
    fuse: two streams  89.47 / 60.59        fuse: phase=star + IDT   94.6 / 70.3
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jax_video import networks, recipe

ARGUMENTS = {
    "phase": "motion",
    "data": "data",
    "imagenet": str,
    "appearance": str,
    "motion": str,
    "start": str,
    "group": int,
    "micro_batch": int,
    "epochs": int,
    "recipe": str,
}


class Phase(NamedTuple):
    """What differs between the phases (ST-ResNet §4 and Table 2)."""

    network: str
    batch: int
    group: int  # videos per group of BatchNorm
    learning_rate: float
    steps: int
    drop_steps: tuple[int, ...]  # after each the learning rate is divided by ten
    frames: int
    strides: tuple[int, ...]  # the smallest and the largest
    crop: str
    micro_batch: int  # our choice: what fits into one device's memory
    small_rate: float  # our learning rate for recipe=small
    small_group: int  # our group of BatchNorm for recipe=small


PHASES = {
    "motion": Phase(
        network="motion_stream", batch=256, group=86, learning_rate=1e-2, steps=40_000, drop_steps=(30_000,),
        frames=1, strides=(), crop="scales", micro_batch=86, small_rate=0.05, small_group=8,
    ),
    "appearance": Phase(
        network="appearance_stream", batch=256, group=8, learning_rate=1e-2, steps=20_000, drop_steps=(10_000,),
        frames=1, strides=(), crop="sizes", micro_batch=64, small_rate=0.02, small_group=8,
    ),
    "joint": Phase(
        network="st_resnet", batch=128, group=4, learning_rate=1e-3, steps=80_000, drop_steps=(30_000, 60_000),
        frames=5, strides=(5, 15), crop="sizes", micro_batch=16, small_rate=0.01, small_group=4,
    ),
    "star": Phase(
        network="st_resnet_star", batch=128, group=4, learning_rate=1e-4, steps=4_000, drop_steps=(2_000,),
        frames=11, strides=(1, 15), crop="sizes", micro_batch=8, small_rate=0.002, small_group=4,
    ),
}  # fmt: skip


def get_config(argument: str = "") -> ConfigDict:
    given = recipe.arguments(argument, **ARGUMENTS)
    if given.phase not in PHASES:
        raise ValueError(f"unknown phase {given.phase!r}: expected {', '.join(PHASES)}.")
    phase = PHASES[given.phase]
    group = given.group or phase.group
    config = recipe.config(
        model={"name": phase.network, "width": 1.0, "stride_on": "3x3"},
        clip={
            "streams": networks.find(phase.network).streams,
            "frames": phase.frames,
            "stride": max(1, sum(phase.strides) // 2),  # in validation
            "strides": phase.strides,
            "short_side": 256,
            "jitter": (),
            "size": 224,
            "crop": phase.crop,
            "flip": None,  # mirrors half of the clips, unless the set forbids it
            "flow_method": "tvl1",
        },
        norm={"group_size": group},
        data={"manifest": given.data},
        train={
            # Whole groups: the motion stream's groups of 86 videos do not divide the paper's batch of 256.
            "batch": -(-phase.batch // group) * group,
            "steps": phase.steps,
            "micro_batch": given.micro_batch or phase.micro_batch,
            "validate_epochs": 10,
            "loss_reduction": "sum",
        },
        optimizer={"momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "decay_norm": False},
        schedule={"kind": "step", "learning_rate": phase.learning_rate, "drop_steps": phase.drop_steps},
        test={
            "clips": "spread",
            "number": 25,
            "crop": "full",
            "flip": None,  # each clip also mirrored, unless the set forbids it
            "average_clips": "logit",
            "batch": 8,
        },
    )
    if recipe.is_small(given):  # our choice: two units in every stage, and flow by the faster method
        config.update(recipe.SMALL)
        config.model.layers = (2, 2, 2, 2)
        config.clip.flow_method = "dis"
        if phase.strides:
            config.clip.update(stride=2, strides=(1, 3))
        config.norm.group_size = given.group or phase.small_group
        config.train.micro_batch = given.micro_batch
        config.schedule.learning_rate = phase.small_rate
    if given.epochs:
        recipe.train_epochs(config, given.epochs)
    config.init_from.update(start(given))
    return config


def start(given: SimpleNamespace) -> dict[str, Any]:
    """Section `init_from`: each phase starts from the one before.

    Raises:
      ValueError: the phase does not start from what is given.
    """
    if given.phase in ("motion", "appearance"):
        if given.appearance or given.motion:
            raise ValueError(f"phase={given.phase} starts from imagenet=FILE, or from start=RUN of the same phase.")
        if given.start:
            return {"path": given.start, "expects": PHASES[given.phase].network, "new_head": True}
        if given.imagenet:
            return {"path": given.imagenet, "layout": "torchvision", "inflate": "mean", "new_head": True}
        return {}
    if given.imagenet:
        raise ValueError(f"phase={given.phase} starts from the runs of the phases before it, not from ImageNet.")
    if given.phase == "joint":
        if given.start or not (given.appearance and given.motion):
            raise ValueError("phase=joint starts from two runs: appearance=RUN,motion=RUN.")
        return {
            "path": (given.appearance, given.motion),
            "into": ("appearance", "motion"),
            "expects": ("appearance_stream", "motion_stream"),
            "inflate": "mean",  # for the convolutions that get three taps in time
        }
    if given.appearance or given.motion or not given.start:
        raise ValueError("phase=star starts from a run of phase=joint: start=RUN.")
    return {"path": given.start, "expects": "st_resnet"}
