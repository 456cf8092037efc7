"""Knowledge transfer from a 2D to a 3D network on videos without labels (STC §3.2, T3D §3.2).

    python -m jax_video.prepare unlabelled --videos=VIDEOS --out=DIR
    python -m jax_video.main --config=configs/transfer.py:data=DIR,weights=resnet50.pth --workdir=runs/transfer
    python -m jax_video.main --config=configs/stc.py:model=stc_resnet101,data=LABELLED,start=runs/transfer

A frozen 2D network, with torchvision's ImageNet weights, sees the frames of a clip, the 3D network the clip, and a
classifier has to tell whether they are of the same video. The 3D network is what is kept: `start` of configs/stc.py and
configs/t3d.py. STC's clips are 16 frames of 112², `frames=32,size=224` are T3D's. Batches are 16 videos: 16 pairs that
belong together and 16 that do not; `clips=4` takes four clips of each.

Arguments: model (the 3D network), teacher (resnet50, resnext101 or densenet121), weights (its weight file, or the run
of a 2D network), data, frames, stride, size, clips (of each video in a batch), branches (of STC), hold (videos on the
devices at once; 0: the batch), epochs, recipe (paper, or small for `motions` and other small sets).

Paper, top-1 on UCF101 split 1 after fine-tuning (ours: not yet run, but for small sets, see benchmarks/RESULTS.md):

    model=resnet3d101  82.1      model=resnext3d101,teacher=resnext101  83.1
    model=stc_resnet101  83.2    model=stc_resnext101,teacher=resnext101  84.7
    of T3D, frames=32,size=224:
    model=resnet3d50  78.2       model=densenet3d121,teacher=densenet121  79.7
                                 model=t3d121,teacher=densenet121  81.3
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    given = common.arguments(
        argument,
        model="stc_resnet101",
        teacher="resnet50",
        weights="",
        data="data",
        frames=16,
        stride=2,
        size=112,
        clips=1,
        branches="both",
        hold=0,
        epochs=0,
        recipe="",
    )
    recipe = common.small_or_paper(given)
    config = common.recipe(given["data"])
    config.model = {"name": given["model"], "width": 1.0}
    if given["model"].startswith("stc_"):
        config.model.update(frames=given["frames"], branches=given["branches"])
    config.teacher = {"name": given["teacher"], "width": 1.0}
    if given["weights"]:
        layout = "torchvision" if given["weights"].endswith((".pth", ".pt", ".safetensors", ".npz")) else ""
        config.init_from.update(path=given["weights"], layout=layout, into="teacher", new_head=True)
    config.clip = {
        "frames": given["frames"],
        "stride": given["stride"],
        "short_side": 122 if given["size"] == 112 else 8 * given["size"] // 7,
        "jitter": (),
        "size": given["size"],
        "crop": "corners",
        "flip": True,
        "segments": given["clips"] if given["clips"] > 1 else 0,
    }
    config.train.update(batch=16, epochs=150)
    config.schedule.update(kind="step", drop_epochs=(30, 60, 90, 120))
    config.test.update(clips="segments" if given["clips"] > 1 else "uniform", number=1)
    if recipe == "small":
        common.small(config)
        config.clip.update(stride=1, crop="random")
        if not config.init_from.layout:  # a file's network is of full width
            config.teacher.width = 0.25
    config.train.epochs = given["epochs"] or config.train.epochs
    common.hold(config, given["hold"])
    return config
