"""STC-Net (Diba et al., ECCV 2018) and the 3D-ResNets and 3D-ResNeXts that it extends.

    python -m jax_video.main --config=configs/stc.py

trains a narrow STC-ResNet-18 on the embedded data set `motions` and tests it, in a few minutes on two CPU cores.

    python -m jax_video.main --config=configs/stc.py:model=stc_resnext101,data=DIR,frames=32

is the paper's best row, on the set that `prepare` wrote into DIR. With a batch of 128, STC-ResNet-101 with 16
frames takes 3.0 of 16 GiB on each of eight TPU v5e (`python -m jax_video.plan` computes it for any network and slice);
`micro_batch=32` computes the batch as four times 32. `recipe=small,data=DIR` trains the narrow network of the first
command on your own videos, for sets of tens to thousands of short clips on a CPU. `start=RUN` continues from another
run, of this recipe on Kinetics or of configs/transfer.py, with a new classifier and a tenth of the learning rate.

Arguments: model, data, frames, stride, branches (STC's Table 5: both, tcb, scb), start, epochs, micro_batch (videos on
the devices at once), recipe (small or paper; by default small on `motions` and paper on every other set).

Paper, top-1 / top-5 (ours: not yet run, except for `motions` and small sets, see benchmarks/RESULTS.md):

    Kinetics-400   model=resnet3d101      62.8 / 83.9      model=resnext3d101             65.1 / 85.7
                   model=stc_resnet101    64.1 / 85.2      model=stc_resnext101           66.2 / 86.5
                                                           model=stc_resnext101,frames=32 68.7 / 88.5
    UCF101 split 1 from scratch, frames=32:
                   model=resnet3d101  46.7    model=stc_resnet18  42.8    model=stc_resnet50  46.2
                   model=stc_resnet101  47.9  …,branches=tcb  47.2        …,branches=scb  46.1
                   …,frames=16  45.6          …,stride=1 / 4 / 16  44.6 / 46.8 / 40.3
    UCF101 / HMDB51, from Kinetics (start=KINETICS_RUN), mean of three splits (python -m jax_video.average):
                   model=resnet3d101  88.9 / 61.7             model=resnext3d101  90.7 / 63.8
                   model=stc_resnet101  90.1 / 62.6           model=stc_resnext101  92.3 / 65.4
                   model=stc_resnet101,frames=64  93.7 / 66.8
                   model=stc_resnext101,frames=32  95.8 / 72.6
    the same, Kinetics itself from a transfer run: model=resnet3d101  91.3 / 64.2   model=stc_resnet101  92.6 / 66.1
    UCF101 split 1 from a transfer run (start=TRANSFER_RUN) / and half of Kinetics (--config.data.fraction=.5 there):
                   model=resnet3d101  82.1 / 84.6             model=resnext3d101  83.1 / 86.9
                   model=stc_resnet101  83.2 / 86.5           model=stc_resnext101  84.7 / 88.2
"""

from ml_collections import ConfigDict

from jax_video import networks, recipe

ARGUMENTS = {
    "model": "stc_resnet18",
    "data": "motions",
    "frames": 16,
    "stride": int,
    "branches": "both",
    "start": str,
    "epochs": int,
    "micro_batch": int,
    "recipe": str,
}


def get_config(argument: str = "") -> ConfigDict:
    given = recipe.arguments(argument, **ARGUMENTS)
    config = recipe.config(
        model={"name": given.model, "width": 1.0, "stem": "hara", "shortcut": "B", "preactivation": False},
        clip={
            "frames": given.frames,
            "stride": given.stride or 2,
            "short_side": 122,
            "jitter": (),
            "size": 112,
            "crop": "corners",
            "flip": None,  # mirrors half of the clips, unless the set forbids it
        },
        data={"manifest": given.data},
        train={"batch": 128, "epochs": 200, "micro_batch": given.micro_batch},
        optimizer={"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "decay_norm": True},
        schedule={"kind": "plateau", "learning_rate": 0.1},  # divided by 10 when the validation loss saturates
        plateau={"patience": 10, "threshold": 1e-3, "drops": 3},  # our choice
        test={"clips": "nonoverlap", "crop": "center", "flip": False, "average_clips": "probability"},
    )
    if recipe.is_small(given):
        config.update(recipe.SMALL)
        config.clip.stride = given.stride or 1
    network = networks.find(given.model)
    config.model.update(network.clip_keywords(given.frames, config.clip.size))
    if "branches" in network.keywords:  # with STC blocks
        config.model.update(branches=given.branches, reduction=4)
    elif given.branches != "both":
        raise ValueError(f"config argument branches={given.branches}: {given.model} has no STC blocks.")
    if given.start:  # our choice: the papers do not say how
        config.init_from.update(path=given.start, new_head=True)
        config.train.epochs = 60
        config.optimizer.head_rate = 10.0
        config.schedule.learning_rate = 0.01
    if given.epochs:
        config.train.epochs = given.epochs
    return config
