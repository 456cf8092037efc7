"""The keys of a config, and what configs of earlier versions mean.

A run's config is saved with it and is read by later versions, which know more keys and have renamed some. Every key has
a row here. The row of a key that came later says what the versions before it did, so that runs of all versions can be
used and continued.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from jax_video.errors import UserError

ALWAYS = object()  # the key has been there from the first version on
SEVERAL = (str, tuple, list)  # the type of a key that holds one string, or several; lists are from JSON


class Key(NamedTuple):
    """A key of a config's section."""

    meaning: str = ""  # a sentence or two for its users, in Markdown
    before: Any = ALWAYS  # the value that stands for what versions without the key did
    kind: type | tuple[type, ...] | None = None  # its type, if it may be None
    none: Any = None  # what earlier versions wrote in place of None


KEYS = {
    "init_from": {
        "path": Key(
            "Weights to start from: a run's folder, an export, a file, or the name of public weights; several "
            "where `into` names several parts. None: random weights.",
            None,
            SEVERAL,
            none="",
        ),
        "layout": Key(
            "Whose names a file's arrays have (`convert --help` lists the layouts). "
            "A folder and public weights tell it themselves.",
            None,
            str,
            none="",
        ),
        "into": Key(
            "The part of the network that the weights are of, such as `network` of one with segment consensus; "
            "or several.",
            None,
            SEVERAL,
            none="",
        ),
        "expects": Key("The network that the run in `path` must be of; several as `path` is.", None, SEVERAL, none=""),
        "inflate": Key(
            "How kernels of 2D networks are stretched over time: `mean` (repeated, divided by their length) or "
            "`centre`. None: they are not.",
            None,
            str,
            none="",
        ),
        "new_head": Key("Leave out the classifier, which starts afresh.", False),
        "keep_head": Key("Keep the classifier although the classes have other names; there must be as many.", False),
        "skip": Key("Patterns of arrays to leave out, by name.", ()),
        "partial": Key(
            "Take a file that has only a part of the network; what is not in it starts afresh, and is listed.", False
        ),
    },
    "norm": {
        "group_size": Key(
            "Videos whose statistics BatchNorm takes together. None: the whole batch, over all devices.", kind=int
        ),
        "frozen": Key("BatchNorm uses its running statistics, and neither they nor its scale and offset change."),
    },
    "data": {
        "manifest": Key("The folder that `prepare` wrote, or `motions`, the embedded set."),
        "workers": Key(
            "Processes that decode. 0: none, in the main process; None: two less than there are cores, 32 at most.",
            kind=int,
            none=-1,
        ),
        "fraction": Key("Share of the training videos that is used, of every class alike.", 1.0),
    },
    "normalize": {
        "mean": Key("Mean of RGB, 0 to 255, which the device subtracts.", (123.675, 116.28, 103.53)),
        "std": Key("Standard deviation of RGB, 0 to 255, by which the difference is divided.", (58.395, 57.12, 57.375)),
    },
    "train": {
        "batch": Key("Videos in a batch, over all devices and hosts."),
        "micro_batch": Key(
            "Videos on the devices at once; their gradients are added up. None: the whole batch.", kind=int
        ),
        "epochs": Key(
            "Passes over the training videos, of round(videos / batch) steps each. None where `steps` is given.",
            kind=int,
        ),
        "steps": Key("Updates in all, in place of epochs.", None, int, none=0),
        "ema": Key("Decay of moving averages of the weights, which are then tested. 0: none."),
        "validate_epochs": Key("Epochs from one validation to the next."),
        "checkpoint_steps": Key("Steps from one checkpoint to the next; there is one after every validation, too."),
        "log_steps": Key("Steps from one line of metrics to the next."),
        "loss": Key("`softmax`, one label a video, or `sigmoid`, several. None: as the set has them.", None, str),
        "loss_reduction": Key("Over the frames that a network scores one by one (ST-ResNet): `sum` or `mean`.", "sum"),
        "label_smoothing": Key("Share of a label that is spread over all classes.", 0.0),
        "mixup": Key("α of mixup's Beta distribution. 0: no mixup.", 0.0),
        "cutmix": Key("α of CutMix's Beta distribution; one box for all frames. 0: no CutMix.", 0.0),
        "color_jitter": Key(
            "How much to change brightness, contrast, saturation and hue, the same in all frames: `.4,.4,.4,.1`.", ()
        ),
        "rand_augment": Key(
            "RandAugment's number of operations and magnitude (0 to 30), the same in all frames: `2,9`.", ()
        ),
        "erasing": Key("Probability that a box is erased, the same in all frames.", 0.0),
        "class_balance": Key(
            "For uneven classes: `sampling` draws all classes equally often, `loss` weighs them. None: neither.",
            None,
            str,
        ),
        "freeze": Key(
            "Parts of the network that stay as they are, from the input on: `stem,layer1`. "
            "No gradient is computed for them.",
            None,
            SEVERAL,
        ),
        "patience": Key(
            "Validations in a row without a lower loss or a better metric, after which training ends. None: never.",
            None,
            int,
        ),
        "keep": Key("The last checkpoints that are kept, beside the best one.", 2),
    },
    "optimizer": {
        "kind": Key("`sgd`, with weight decay in the gradient as in PyTorch, or `adamw`.", "sgd"),
        "momentum": Key("Momentum of SGD; β₁ of AdamW."),
        "nesterov": Key("Whether SGD's momentum is Nesterov's."),
        "weight_decay": Key("Weight decay, of all weights but those that `decay_norm` leaves out."),
        "decay_norm": Key("Whether BatchNorm's scale and offset decay, too."),
        "clip_norm": Key("A gradient of a larger norm is scaled to this one. 0: none is.", 0.0),
        "head_rate": Key(
            "What the classifier's learning rate is multiplied by; in a transfer, of all layers after the features.",
            1.0,
        ),
        "layer_decay": Key("What a part's learning rate is multiplied by, compared with the next part's.", 1.0),
    },
    "schedule": {
        "kind": Key("After the warm-up: `plateau` (section `plateau`), `step` or `cosine`."),
        "learning_rate": Key("The largest learning rate, at the end of the warm-up."),
        "warmup_epochs": Key("Epochs in which the rate rises from 0."),
        "drop_epochs": Key("With `step`: epochs after which the rate is multiplied by `drop_factor`."),
        "drop_steps": Key("With `step`: the same, counted in steps.", ()),
        "drop_factor": Key("With `step`: the factor of each drop.", 0.1),
    },
    "plateau": {
        "patience": Key("Validations in a row whose loss is no better, after which the rate is divided by 10."),
        "threshold": Key("By which share a loss must be lower than the best to be better."),
        "drops": Key("How often the rate is divided; the next plateau ends the training."),
    },
    "test": {
        "split": Key(
            "`test`, `val` or `train`. Of another than `test` the result stands in `SPLIT` of the run's folder, with "
            "`--step` in `SPLIT-step…`.",
            "test",
        ),
        "clips": Key(
            "`nonoverlap` (one after the other), `uniform` (`number`, evenly spread), "
            "`spread` (one clip of `number` frames over the whole video) or `segments`."
        ),
        "number": Key("How many `uniform` clips, or frames of the `spread` one."),
        "crop": Key(
            "`center`, `three` (squares of the short side that cover the frame) or `full` (whole frames).", "center"
        ),
        "flip": Key("Whether each clip is also seen mirrored. None: where the set allows it.", False, bool),
        "average_clips": Key("What is averaged over the clips of a video: `probability` or `logit`."),
        "batch": Key("Clips at once, in validation too."),
        "allow_partial": Key(
            "Test although some of the test videos cannot be read; the result says of how many it is."
        ),
    },
    "clip": {
        "frames": Key("Frames of a clip."),
        "stride": Key("Steps from one frame of a clip to the next: 1 takes every frame."),
        "short_side": Key("Short side of the resized frames, in pixels."),
        "size": Key("Side of the square crop, in pixels."),
        "crop": Key(
            "Crop of training clips: `corners` (a corner or the centre), `random`, `center`, `scales` or "
            "`sizes` (ST-ResNet's two)."
        ),
        "flip": Key("Whether training mirrors half of the clips. None: where the set allows it.", kind=bool),
        "jitter": Key("Least and most of the short side, which training draws. Empty: `short_side`.", ()),
        "segments": Key("Clips of a video that the network takes together (T3D+TSN). 0: just one.", 0),
        "streams": Key("What the network takes: `rgb`, `flow` or both.", ("rgb",)),
        "strides": Key("Least and most of the stride, which training draws. Empty: `stride`.", ()),
        "flow_method": Key("`tvl1` or `dis`, for optical flow that is not stored.", "tvl1"),
        "fps": Key(
            "Frames per second that clips are cut at, whatever the videos' own rate. None: as they are stored.",
            None,
            float,
        ),
    },
}
RENAMED = {  # old name -> new name, by section
    "train": {"accumulate": "micro_batch"},  # which counted micro-batches, not the videos in one
    "test": {"average": "average_clips"},
    "normalize": {"deviation": "std"},
}
VALUES = ("seed", "dtype")  # keys of a config that are no sections
NETWORKS = ("model", "teacher")  # sections whose keys are those of the network that they name
_NEW = {name for name, keys in KEYS.items() if all(key.before is not ALWAYS for key in keys.values())}  # whole sections
_LEFT_OUT = {"clip"}  # sections of which recipes of this version may leave out keys, too


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config in the keys of this version; a key that it lacks gets the value that its version implied."""
    if not KEYS.keys() & config.keys():  # not the config of a run
        return dict(config)
    return {name: complete_section(name, value) for name, value in (dict.fromkeys(_NEW, {}) | dict(config)).items()}


def complete_section(name: str, section: Any) -> Any:
    """`complete` for one section, or for a value that is no section."""
    if name not in KEYS:
        return section
    later = {key: row.before for key, row in KEYS[name].items() if row.before is not ALWAYS}
    return later | _translated(name, section)


def complete_recipe(config: ConfigDict) -> ConfigDict:
    """`complete` for the config of a recipe, be it of this version or copied from an earlier one.

    Keys that recipes may leave out are not added. A key that is None can be set to a value of the key's type, and to no
    other.
    """
    sections = {}
    for name in (name for name in KEYS if name in config or name in _NEW):
        found = config.get(name, ConfigDict())
        sections[name] = {
            key: value
            for key, value in complete_section(name, found.to_dict()).items()
            if key in found or name not in _LEFT_OUT
        }
    if all(name in config and _is_typed(config[name], section) for name, section in sections.items()):
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        for name, section in sections.items():
            config[name] = ConfigDict(
                {key: _typed(KEYS[name].get(key, Key()), value) for key, value in section.items()}
            )
    return config


def _is_typed(found: ConfigDict, section: Mapping[str, Any]) -> bool:
    """Whether a section is complete already, and each of its keys that are None has a type."""
    typed = all(value is not None or found.get_type(key) is not type(None) for key, value in found.items())
    return typed and found.to_dict() == section


def _typed(row: Key, value: Any) -> Any:
    """A recipe's value of a key. If the key may be None, the value has the type of others that it can be set to."""
    return value if row.kind is None else config_dict.FieldReference(value, field_type=row.kind)


def unknown(config: Mapping[str, Any]) -> list[str]:
    """The keys, as in `--config.KEY`, that no version has had. Keywords of networks are checked elsewhere."""
    found = []
    for name, value in config.items():
        if name in (*VALUES, *NETWORKS):
            continue
        keys = KEYS.get(name)
        if keys is None:
            found.append(name)
        else:
            found += [f"{name}.{key}" for key in value if key not in keys and key not in RENAMED.get(name, {})]
    return found


def _translated(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """A section in the names and values of this version."""
    section = dict(section)
    for old, new in RENAMED.get(name, {}).items():
        if old in section:
            value = section.pop(old)
            section[new] = micro_batch(section["batch"], value) if old == "accumulate" else value
    for key, row in KEYS[name].items():
        if row.none is not None and section.get(key) == row.none:
            section[key] = None
    if section.get("steps") is not None:  # in place of the epochs
        section["epochs"] = None
    if name == "train" and section.get("freeze") is not None:
        parts = _split(section["freeze"])
        section["freeze"] = (parts,) if isinstance(parts, str) else tuple(parts)
    if name == "init_from":
        section |= {key: _split(section[key]) for key in ("into", "expects") if key in section}
        if not isinstance(section.get("into"), str | None):
            section["path"] = _split(section.get("path"))
    return section


def micro_batch(batch: int, accumulate: int) -> int | None:
    """The videos in a micro-batch if a batch is cut into `accumulate` of them; None for one: the whole batch.

    Raises:
      UserError: `accumulate` does not divide the batch.
    """
    if accumulate < 1 or batch % accumulate:
        raise UserError(f"train.accumulate is {accumulate}, which does not divide train.batch={batch}.")
    return None if accumulate == 1 else batch // accumulate


def _split(value: Any) -> Any:
    """Several strings, which earlier versions wrote as one with commas."""
    return tuple(value.split(",")) if isinstance(value, str) and "," in value else value
