"""Two streams, ST-ResNet and ST-ResNet* (Feichtenhofer et al., NeurIPS 2016), in four phases.

    python -m jax_video.prepare ucf101 --videos=UCF-101 --annotations=ucfTrainTestlist --out=DIR --flow=tvl1
    run() { python -m jax_video.main --config=configs/st_resnet.py:data=DIR,phase=$1 --workdir=runs/${1%%,*}; }
    run motion,imagenet=resnet50.pth
    run appearance,imagenet=resnet50.pth
    run joint,appearance=runs/appearance,motion=runs/motion
    run star,start=runs/joint

with the paper's settings: the streams by themselves from torchvision's ImageNet weights, ST-ResNet from both,
ST-ResNet* from ST-ResNet. A test is one pass over 25 frames of the whole video and their mirror images. Where `prepare`
has stored no flow it is computed while training, which is slow. Two streams are two runs together, and so are
ST-ResNet* and the scores of improved trajectories:

    python -m jax_video.fuse runs/appearance runs/motion
    python -m jax_video.fuse runs/star idt.csv --l2

Arguments: phase (motion if not given), data, imagenet (torchvision's ResNet-50, a file), appearance, motion (runs),
start (the run before; for a stream, the same stream's run on another set, of which all but the classifier is taken),
group (videos that BatchNorm takes its moments over; of the motion stream 86, which 4 or 8 devices cannot share: take 64
there), hold (videos on the devices at once; 0: a choice for one device), epochs (in place of the paper's steps), recipe
(paper, or small for `motions` and other small sets, with --config.clip.flow_method and short_side as they were stored).

Paper, UCF101 / HMDB51, mean of three splits (ours: not yet run, but for `motions`, see benchmarks/RESULTS.md):

    phase=appearance   82.29 / 43.42        phase=motion             79.05 / 55.47
    phase=joint        92.76 / 65.57        phase=star               93.46 / 66.41
    fuse: two streams  89.47 / 60.59        fuse: phase=star + IDT   94.6 / 70.3
"""

from ml_collections import ConfigDict

from configs import common

PHASES = {
    # Batches are rounded up to whole groups: BatchNorm's 86 videos of the motion stream do not divide the paper's 256.
    "motion": {"model": "motion_stream", "batch": 256, "group": 86, "hold": 86, "frames": 1, "strides": ()},
    "appearance": {"model": "appearance_stream", "batch": 256, "group": 8, "hold": 64, "frames": 1, "strides": ()},
    "joint": {"model": "st_resnet", "batch": 128, "group": 4, "hold": 16, "frames": 5, "strides": (5, 15)},
    "star": {"model": "st_resnet_star", "batch": 128, "group": 4, "hold": 8, "frames": 11, "strides": (1, 15)},
}
SCHEDULES = {  # learning rate, steps, those after which it is divided by ten
    "motion": (1e-2, 40_000, (30_000,)),
    "appearance": (1e-2, 20_000, (10_000,)),
    "joint": (1e-3, 80_000, (30_000, 60_000)),
    "star": (1e-4, 4_000, (2_000,)),
}
STREAMS = {"motion": ("flow",), "appearance": ("rgb",), "joint": ("rgb", "flow"), "star": ("rgb", "flow")}


def get_config(argument: str = "") -> ConfigDict:
    given = common.arguments(
        argument,
        phase="motion",
        data="data",
        imagenet="",
        appearance="",
        motion="",
        start="",
        group=0,
        hold=0,
        epochs=0,
        recipe="",
    )
    if given["phase"] not in PHASES:
        raise ValueError(f"unknown phase {given['phase']!r}: expected {', '.join(PHASES)}.")
    recipe = common.small_or_paper(given)
    config = paper(given)
    if recipe == "small":
        small(config, given)
    if given["epochs"]:
        config.train.update(epochs=given["epochs"], steps=0)
    before(config, given)
    return config


def paper(given: dict) -> ConfigDict:
    """ST-ResNet §4: BatchNorm over parts of a batch, a loss for every frame and stream, no decay of BatchNorm."""
    phase = given["phase"]
    settings, (rate, steps, drops) = PHASES[phase], SCHEDULES[phase]
    config = common.recipe(given["data"])
    config.model = {"name": settings["model"], "width": 1.0, "stride_on": "3x3"}
    config.clip = {
        "streams": STREAMS[phase],
        "frames": settings["frames"],
        "stride": max(1, sum(settings["strides"]) // 2),  # of validation
        "strides": settings["strides"],
        "short_side": 256,
        "jitter": (),
        "size": 224,
        "crop": "scales" if phase == "motion" else "sizes",
        "flip": True,
        "flow_method": "tvl1",
    }
    config.norm.group_size = group = given["group"] or settings["group"]
    config.train.update(batch=-(-settings["batch"] // group) * group, steps=steps, validate_epochs=10)
    config.optimizer.update(nesterov=False, weight_decay=5e-4, decay_norm=False)
    config.schedule.update(kind="step", learning_rate=rate, drop_steps=drops)
    config.test.update(clips="spread", number=25, crop="full", flip=True, average="logit", batch=8)
    common.hold(config, given["hold"] or settings["hold"])
    return config


def small(config: ConfigDict, given: dict) -> None:
    """A quarter of the width, two units in every stage, clips of 56², and flow by the quicker method."""
    phase = given["phase"]
    common.small(config)
    config.model.layers = (2, 2, 2, 2)
    config.clip.update(crop="random", flow_method="dis")
    if config.clip.strides:
        config.clip.update(stride=2, strides=(1, 3))
    config.test.flip = config.clip.flip
    config.norm.group_size = given["group"] or (8 if phase in ("motion", "appearance") else 4)
    config.train.accumulate = 1
    common.hold(config, given["hold"])
    config.schedule.learning_rate = {"motion": 0.05, "appearance": 0.02, "joint": 0.01, "star": 0.002}[phase]


def before(config: ConfigDict, given: dict) -> None:
    """Where a phase starts from: each from the one before."""
    phase, init_from = given["phase"], config.init_from
    if phase in ("motion", "appearance"):
        if given["appearance"] or given["motion"]:
            raise ValueError(f"phase={phase} starts from imagenet=FILE, or from start=RUN of the same phase.")
        if given["start"]:
            init_from.update(path=given["start"], expects=config.model.name, new_head=True)
        elif given["imagenet"]:
            init_from.update(path=given["imagenet"], layout="torchvision", inflate="mean", new_head=True)
        return
    if given["imagenet"]:
        raise ValueError(f"phase={phase} starts from the runs of the phases before it, not from ImageNet.")
    if phase == "joint":
        if given["start"] or not (given["appearance"] and given["motion"]):
            raise ValueError("phase=joint starts from two runs: appearance=RUN,motion=RUN.")
        init_from.update(
            path=f"{given['appearance']},{given['motion']}",
            into="appearance,motion",
            expects="appearance_stream,motion_stream",
            inflate="mean",  # of the convolutions that get three taps in time
        )
    else:
        if given["appearance"] or given["motion"] or not given["start"]:
            raise ValueError("phase=star starts from a run of phase=joint: start=RUN.")
        init_from.update(path=given["start"], expects="st_resnet")
