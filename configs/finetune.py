"""Fine-tuning: a network that was trained on a large set is trained further on a small set of your own.

    python -m jax_video.prepare folder --videos=DIR --out=data/mine
    python -m jax_video.main --config=configs/finetune.py:weights=torchvision:r2plus1d_18,data=data/mine

The weights are

- public weights by name (`python -m jax_video.models --weights`): of a video network, or of an image network, whose
  kernels are then inflated over time to start a video network;
- the folder of a run, or of an export, also in a store or behind a URL: its network, its clips, its test and its
  normalisation of RGB are kept;
- a file, with `model` (its network) and `layout` (`python -m jax_video.convert --help` lists the layouts).

The lower half of the network is frozen, and so is all BatchNorm; of a network that adds to that of the weights in every
stage, as CoST and STC-Net do, the stem alone. The rest is trained by AdamW with label smoothing; the new classifier has
ten times the learning rate. benchmarks/RESULTS.md says what each of these is worth on two small sets.

Arguments: weights, data, model (the network; by default that of the weights), layout, frames (of a clip), span (frames
of the video that a clip is taken from), size (of the crop, in pixels), epochs, batch, micro_batch.
"""

import pathlib

from ml_collections import ConfigDict

from jax_video import networks, recipe
from jax_video.weights import names, public

ARGUMENTS = {
    "weights": "torchvision:r2plus1d_18",
    "data": "data",
    "model": str,
    "layout": str,
    "frames": int,
    "span": int,
    "size": int,
    "epochs": 20,
    "batch": 8,
    "micro_batch": int,
}
FOR_VIDEOS = {  # image network: the video network that starts from it
    "resnet50": "c2d_resnet50",
    "resnet101": "c2d_resnet101",
    "densenet121": "densenet3d121",
    "densenet169": "densenet3d169",
}
SPAN = 48  # frames of the video that a clip spans, where the weights do not say


def get_config(argument: str = "") -> ConfigDict:
    given = recipe.arguments(argument, **ARGUMENTS)
    run, known = recipe.trained(given.weights), public.find(given.weights)
    source = run["model"]["name"] if run else known.network if known else given.model
    layout = known.layout if known else given.layout
    if source is None or not (run or layout):
        there = "" if pathlib.Path(given.weights or "?").exists() else "there is no such file or folder here; "
        raise ValueError(
            f"weights={given.weights}: {there}of a file say model=NAME, the network it is for, and layout=NAME."
        )
    name = given.model or FOR_VIDEOS.get(source, source)
    network, same = networks.find(name), name == source
    told = names.layout(layout) if layout else None
    fresh = network.own if not same or layout == "torchvision" else ()  # arrays that the weights do not have
    parts = tuple(network.parts)

    tested = run["test"] if run and same and not run.get("teacher") else {}  # a transfer's test is of pairs
    seen = run["clip"] if run and same else dict(told.clip) if told and same else {}
    size = given.size or seen.get("size", network.size)
    frames = given.frames or seen.get("frames", network.frames)
    span = given.span or frames * seen.get("stride", 0) or SPAN
    whole = seen["short_side"] / seen["size"] if "size" in seen else 8 / 7  # short side of the frame / side of the crop
    config = recipe.config(
        dtype="float32",
        model={"name": name},
        clip=seen
        | {
            "frames": frames,
            "stride": max(1, span // frames),
            "strides": () if given.span else seen.get("strides", ()),
            "short_side": round(size * whole),
            "jitter": (),
            "size": size,
            "crop": "random",
            "flip": None,  # mirrors half of the clips, unless the set forbids it
        }
        | ({"segments": 0} if run and run.get("teacher") else {}),
        norm={"frozen": True},
        data={"manifest": given.data},
        train={
            "batch": given.batch,
            "epochs": given.epochs,
            "micro_batch": given.micro_batch,
            "label_smoothing": 0.1,
            "freeze": parts[:1] if fresh else parts[: (len(parts) + 1) // 2],
            "log_steps": 10,
        },
        optimizer={
            "kind": "adamw",
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 0.05,
            "decay_norm": True,
            "head_rate": 10.0,
        },
        schedule={"kind": "cosine", "learning_rate": 1e-4, "warmup_epochs": int(given.epochs > 1)},
        test={
            **{"clips": "uniform", "number": 4, "crop": "center", "average_clips": "probability"},
            **tested,
            "flip": None if tested.get("flip") else False,  # None: each clip also mirrored, unless the set forbids it
            **{"split": "test", "allow_partial": False, "batch": 16},
        },
    )
    if run and same:
        config.model.update(run["model"])
    normalize = run["normalize"] if run else told.normalize if told else None
    if normalize:
        config.normalize.update(normalize)
    config.model.update(network.clip_keywords(frames, size))
    if "dropout" in network.keywords:
        config.model.dropout = 0.0
    config.init_from.update(path=given.weights, layout=layout, new_head=True)
    if not same or layout == "torchvision":  # of another network, or of images
        config.init_from.update(inflate="mean", skip=fresh)
    return config
