"""CoST (Li et al., CVPR 2019, "Collaborative spatiotemporal feature learning"), and its baselines C2D and C3D.

    python -m jax_video.main --config=configs/cost.py:data=DIR,imagenet=resnet50.pth

trains CoST(b) on ResNet-50 on the set that `prepare` wrote into DIR, with the paper's settings, from torchvision's
weights for ImageNet: 8 of 64 frames at 224², batch 32 with BN over 8 clips, 600,000 steps. `recipe=code` is the
schedule of the authors' later code: batch 64, 160 epochs. Whole frames are tested; `--config.test.crop=three` is
the authors' code's three squares.

Arguments: model, data, frames (8 or 32), span (frames of the video that a clip is taken from), share_weights (Table 3),
recipe (paper or code), imagenet (a weight file of torchvision's network of the same depth, to start from).

Paper, top-1 / top-5 (ours: not yet run):

    Moments in Time   model=c2d_resnet50  27.9 / 54.6         model=c3d_3x1x1_resnet50  29.0 / 55.3
                      model=cost_a_resnet50  29.3 / 55.8      model=cost_b_resnet50  30.1 / 57.2
                      model=cost_b_resnet50,share_weights=false  29.0 / 56.1
                      model=c2d_resnet101  30.0 / 56.8        model=c3d_3x1x1_resnet101  30.6 / 57.7
                      model=cost_b_resnet101  31.5 / 57.9
    Kinetics-400      model=c2d_resnet50  71.5 / 89.8         model=c3d_3x1x1_resnet50  73.3 / 90.4
                      model=cost_a_resnet50  73.6 / 90.8      model=cost_b_resnet50  74.1 / 91.2
                      model=cost_b_resnet50,share_weights=false  73.2 / 90.2
                      model=c2d_resnet101  72.9 / 89.8        model=c3d_3x1x1_resnet101  74.5 / 91.1
                      model=cost_b_resnet101  75.5 / 92.0
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    given = common.arguments(
        argument,
        model="cost_b_resnet50",
        data="data",
        frames=8,
        span=64,
        share_weights=True,
        recipe="paper",
        imagenet="",
    )
    if given["recipe"] not in ("paper", "code"):
        raise ValueError(f"unknown recipe {given['recipe']!r}: expected paper or code.")
    config = common.recipe(given["data"])
    config.model = {"name": given["model"], "width": 1.0, "dropout": 0.5}
    new = ["fc/*"]  # what ImageNet's weights do not have
    if not given["model"].startswith("resn"):  # C2D, C3D and CoST; the others are 2D, frame by frame
        config.model.update(frames=given["frames"], pool="paper" if given["recipe"] == "paper" else "code")
    if given["model"].startswith("cost_"):
        config.model.share_weights = given["share_weights"]
        new += ["*/alpha"] if given["model"].startswith("cost_a") else ["*/conv2/fc1/*", "*/conv2/fc2/*"]
    if given["imagenet"]:
        config.init_from.update(path=given["imagenet"], layout="torchvision", inflate="mean", skip=tuple(new))
    config.clip = {
        "frames": given["frames"],
        "stride": given["span"] // given["frames"],
        "short_side": 256,
        "jitter": (256, 320),
        "size": 224,
        "crop": "random",
        "flip": True,
    }
    config.norm.group_size = 8
    config.optimizer.nesterov = False
    if given["recipe"] == "paper":  # CoST §4.1
        config.train.update(batch=32, steps=600_000)
        config.schedule.update(kind="step", learning_rate=0.005, drop_steps=(300_000, 450_000))
    else:
        config.train.update(batch=64, epochs=160)
        config.schedule.update(kind="step", learning_rate=0.01, drop_epochs=(80, 120))
        config.optimizer.clip_norm = 40.0
    config.test.update(clips="uniform", number=10, crop="full", batch=8)
    return config
