"""Knowledge transfer from a 2D to a 3D network on videos without labels (STC §3.2, T3D §3.2).

    python -m jax_video.prepare unlabelled --videos=VIDEOS --out=DIR
    python -m jax_video.main --config=configs/transfer.py:data=DIR,weights=resnet50.pth --workdir=runs/transfer
    python -m jax_video.main --config=configs/stc.py:model=stc_resnet101,data=LABELLED,start=runs/transfer

A frozen 2D network with torchvision's ImageNet weights sees the frames of a clip, the 3D network sees a clip, and a
classifier has to tell whether both are of the same video. Only the 3D network is kept: `start` of configs/stc.py and
configs/t3d.py takes it. STC's clips are 16 frames of 112²; `frames=32,size=224` are T3D's. A batch is 16 videos: 16
pairs that belong together and 16 that do not; `clips=4` takes four clips of each video.

Arguments: model (the 3D network), teacher (resnet50, resnext101 or densenet121), weights (the teacher's: a file, public
weights by name, or the run of a 2D network), data, frames, stride, size, clips (of each video in a batch), branches (of
STC), micro_batch (videos on the devices at once), epochs (the rate drops at the same shares of the run), recipe (small
or paper; by default small on `motions` and paper on every other set).

Paper, top-1 on UCF101 split 1 after fine-tuning (ours: not yet run, except for small sets, see benchmarks/RESULTS.md):

    model=resnet3d101  82.1      model=resnext3d101,teacher=resnext101  83.1
    model=stc_resnet101  83.2    model=stc_resnext101,teacher=resnext101  84.7
    of T3D, frames=32,size=224:
    model=resnet3d50  78.2       model=densenet3d121,teacher=densenet121  79.7
                                 model=t3d121,teacher=densenet121  81.3
"""

import pathlib

from ml_collections import ConfigDict

from jax_video import networks, recipe

ARGUMENTS = {
    "model": "stc_resnet101",
    "teacher": "resnet50",
    "weights": str,
    "data": "data",
    "frames": 16,
    "stride": int,
    "size": int,
    "clips": 1,
    "branches": "both",
    "micro_batch": int,
    "epochs": int,
    "recipe": str,
}
SHORT_SIDES = {112: 122, 224: 256}  # STC's and T3D's


def get_config(argument: str = "") -> ConfigDict:
    given = recipe.arguments(argument, **ARGUMENTS)
    several = given.clips > 1
    config = recipe.config(
        model={"name": given.model, "width": 1.0},
        teacher={"name": given.teacher, "width": 1.0},
        clip={
            "frames": given.frames,
            "stride": given.stride or 2,
            "jitter": (),
            "crop": "corners",
            "flip": None,  # mirrors half of the clips, unless the set forbids it
            "segments": given.clips if several else 0,
            **frame(given.size or 112),
        },
        data={"manifest": given.data},
        train={"batch": 16, "epochs": 150, "micro_batch": given.micro_batch},
        optimizer={"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "decay_norm": True},
        schedule={"kind": "step", "learning_rate": 0.1, "drop_epochs": (30, 60, 90, 120)},
        test={
            "clips": "segments" if several else "uniform",
            "number": 1,
            "crop": "center",
            "flip": False,
            "average_clips": "probability",
        },
    )
    network = networks.find(given.model)
    if given.weights:
        is_run = "://" in given.weights or pathlib.Path(given.weights).is_dir()
        config.init_from.update(path=given.weights, into="teacher", new_head=True)
        config.init_from.layout = None if is_run else "torchvision"
        config.optimizer.head_rate = 0.1  # at the papers' rate, the layers after a trained teacher's features diverge
    if recipe.is_small(given):
        config.update(recipe.SMALL)
        config.clip.stride = given.stride or 1
        if given.size:
            config.clip.update(frame(given.size))
        if not config.init_from.layout:  # a file has the weights of a network of full width
            config.teacher.width = 0.25
    config.model.update(network.clip_keywords(config.clip.frames, config.clip.size))
    if "branches" in network.keywords:  # with STC blocks
        config.model.branches = given.branches
    elif given.branches != "both":
        raise ValueError(f"config argument branches={given.branches}: {given.model} has no STC blocks.")
    if given.epochs:
        recipe.train_epochs(config, given.epochs)
    return config


def frame(size: int) -> dict[str, int]:
    """Keys of section `clip`: the size of the crop, and that of the frame that it is cut from."""
    return {"size": size, "short_side": SHORT_SIDES.get(size, 8 * size // 7)}
