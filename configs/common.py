"""What the configs share: their `key=value` arguments, and the sections that most recipes have alike."""

from ml_collections import ConfigDict, config_dict


def arguments(text: str, **defaults):
    """`arguments("frames=32,branches=tcb", frames=16, branches="both")` -> {"frames": 32, "branches": "tcb"}.

    Values take the type of their default; true and false are booleans.

    Raises:
      ValueError: an unknown key, or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if key not in defaults or not equals:
            raise ValueError(f"unknown config argument {item!r}: expected key=value with one of {', '.join(defaults)}.")
        kind = type(defaults[key])
        try:
            values[key] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            raise ValueError(f"config argument {item!r}: expected a value like {defaults[key]!r}.") from None
    return values


def recipe(data: str) -> ConfigDict:
    """Everything but `model` and `clip`, as most papers have it: SGD with a plateau rule, one clip after another."""
    return ConfigDict(
        {
            "seed": 0,
            "dtype": "bfloat16",
            "init_from": {
                "path": "",  # of a run's folder, or of a weight file in `layout`
                "layout": "",
                "into": "",  # the part of the network that they are of; several with commas, and as many paths
                "expects": "",  # the network that the run must be of
                "inflate": "",
                "new_head": False,  # a classifier that starts afresh
                "keep_head": False,  # the weights' own, although its classes may be others
                "skip": (),
            },
            "norm": {"group_size": config_dict.placeholder(int), "frozen": False},
            "data": {"manifest": data, "workers": -1, "fraction": 1.0},  # -1 worker processes: as the machine has cores
            "normalize": {"mean": (123.675, 116.28, 103.53), "deviation": (58.395, 57.12, 57.375)},
            "train": {
                "batch": 128,
                "accumulate": 1,
                "epochs": 200,
                "steps": 0,  # where above 0, in place of the epochs
                "ema": 0.0,
                "validate_epochs": 1,
                "checkpoint_steps": 1000,
                "log_steps": 50,
                "loss_reduction": "sum",  # over frames, of networks that score each
            },
            "optimizer": {
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 1e-4,
                "decay_norm": True,
                "clip_norm": 0.0,
                "head_rate": 1.0,
            },
            "schedule": {
                "kind": "plateau",
                "learning_rate": 0.1,
                "warmup_epochs": 0,
                "drop_epochs": (),
                "drop_steps": (),
            },
            "plateau": {"patience": 10, "threshold": 1e-3, "drops": 3},
            "test": {
                "clips": "nonoverlap",
                "number": 10,
                "crop": "center",
                "flip": False,
                "average": "probability",
                "batch": 64,
                "allow_partial": False,
            },
        }
    )


def small_or_paper(given: dict) -> str:
    """Which recipe the arguments ask for; where they do not say, small for `motions` and paper for everything else."""
    recipe = given["recipe"] or ("small" if given["data"] == "motions" else "paper")
    if recipe not in ("small", "paper"):
        raise ValueError(f"unknown recipe {recipe!r}: expected small or paper.")
    return recipe


def small(config: ConfigDict) -> None:
    """Makes a recipe one for tens to thousands of short videos on a CPU: a quarter of the width, clips of 56²."""
    config.dtype = "float32"
    config.model.width = 0.25
    config.data.workers = 0
    config.clip.update(short_side=62, size=56)
    config.clip.flip = config.data.manifest != "motions"  # which tells left from right
    config.train.update(batch=16, steps=0, epochs=10, validate_epochs=5, log_steps=20)
    config.schedule.update(kind="cosine", warmup_epochs=1, drop_steps=(), drop_epochs=())
    config.test.update(batch=16)


def fine_tune(config: ConfigDict, start: str) -> None:
    """Goes on from another run's weights, with a classifier of its own (ours: the papers do not say how)."""
    config.init_from.update(path=start, new_head=True)
    config.train.epochs = 60
    config.optimizer.head_rate = 10.0
    config.schedule.learning_rate = 0.01


def hold(config: ConfigDict, videos: int) -> None:
    """Lets no more than so many videos of a batch be on the devices at once; 0: all of it.

    Gradients are accumulated, and groups of BatchNorm left whole; without groups, what is held is one.
    """
    if not videos:
        return
    batch, group = config.train.batch, config.norm.group_size or 1
    held = max(
        (count for count in range(1, batch + 1) if batch % count == 0 == count % group and count <= videos),
        default=group,
    )
    config.train.accumulate = batch // held
    if not config.norm.frozen:  # which counts clips
        config.norm.group_size = config.norm.group_size or held * max(1, config.clip.get("segments", 0))
