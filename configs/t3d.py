"""T3D (Diba et al. 2017, "Temporal 3D ConvNets"), the DenseNet3D that it extends, and the networks beside them.

    python -m jax_video.main --config=configs/t3d.py:data=DIR

trains T3D-121 on the set that `prepare` wrote into DIR, with the paper's settings: clips of 32 frames at 224², batch
64. It takes 7.0 of 16 GiB on each of eight TPU v5e (`python -m jax_video.plan`); `micro_batch=16` computes the batch as
four times 16. `start=RUN` continues from another run, of this recipe on Kinetics or of configs/transfer.py, with a new
classifier and a tenth of the learning rate.

Arguments: model, data, frames, stride, size (224 or 112, from a short side of 256 or 128), consensus, start, epochs,
micro_batch (videos on the devices at once).
`consensus=true` is T3D+TSN: five clips of a video, one from each fifth; the loss is of the mean of their logits. The
batch counts videos.

Paper, top-1 (ours: not yet run):

    UCF101 split 1 from scratch:
                   model=densenet3d121  69.1        model=densenet3d169  71.3
                   …,frames=16  66.8                …,size=112  61.2
                   …,stride=1 / 4 / 16  65.2 / 68.3 / 60.5
                   model=resnet3d50  59.2           model=inception3d  69.5
                   model=t3d121  71.4
    Kinetics-400   model=densenet3d121  59.5        model=t3d121  62.2
                   model=inception3d  58.9         model=resnet3d34  58.0
    UCF101 / HMDB51, from Kinetics (start=KINETICS_RUN), mean of three splits (python -m jax_video.average):
                   model=densenet3d121  88.9 / 57.8           model=t3d121  90.3 / 59.2
                   model=inception3d  87.2 / 56.9             model=resnet3d34  86.1 / 55.6
                   model=t3d121,consensus=true  93.2 / 63.5
    the same, Kinetics itself from a transfer run: model=t3d121  91.7 / 61.1
    UCF101 split 1 from a transfer run (start=TRANSFER_RUN) / and half of Kinetics (--config.data.fraction=.5 there):
                   model=resnet3d50  78.2 / 82.1   model=densenet3d121  79.7 / 82.5   model=t3d121  81.3 / 84.7

(The paper's ResNet3D on Kinetics has 38 layers, in no known arrangement; 34 is the nearest.)
"""

from ml_collections import ConfigDict

from jax_video import networks, recipe

ARGUMENTS = {
    "model": "t3d121",
    "data": "data",
    "frames": 32,
    "stride": 2,
    "size": 224,
    "consensus": False,
    "start": str,
    "epochs": int,
    "micro_batch": int,
}


def get_config(argument: str = "") -> ConfigDict:
    given = recipe.arguments(argument, **ARGUMENTS)
    config = recipe.config(
        model={"name": given.model, "width": 1.0},
        clip={
            "frames": given.frames,
            "stride": given.stride,
            "short_side": 8 * given.size // 7,
            "jitter": (),
            "size": given.size,
            "crop": "corners",
            "flip": None,  # mirrors half of the clips, unless the set forbids it
        },
        data={"manifest": given.data},
        train={"batch": 64, "epochs": 200, "micro_batch": given.micro_batch},
        optimizer={"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "decay_norm": True},
        schedule={"kind": "plateau", "learning_rate": 0.1},  # divided by 10 when the validation loss saturates
        plateau={"patience": 10, "threshold": 1e-3, "drops": 3},  # our choice
        test={"clips": "nonoverlap", "crop": "center", "flip": False, "average_clips": "probability"},
    )
    config.model.update(networks.find(given.model).clip_keywords(given.frames, given.size))
    if given.consensus:
        config.model.consensus = True
        config.init_from.into = "network"  # the part that each clip goes through
        config.clip.segments = 5
        config.test.clips = "segments"
    if given.start:  # our choice: the papers do not say how
        config.init_from.update(path=given.start, new_head=True)
        config.train.epochs = 60
        config.optimizer.head_rate = 10.0
        config.schedule.learning_rate = 0.01
    if given.epochs:
        config.train.epochs = given.epochs
    return config
