"""The keys of a config, and what configs of earlier versions mean.

A run's config is saved with it and is read by later versions, which know more keys and call some otherwise. Every key
has a row here. The row of a key that came later says what the versions before it did; so runs of all versions can be
used and gone on with.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from jax_video.errors import UserError

ALWAYS = object()  # the key has been there from the first version on
SEVERAL = (str, tuple, list)  # the type of a key that holds one string, or several; lists are from JSON


class Key(NamedTuple):
    """A key of a config's section."""

    before: Any = ALWAYS  # what versions did that did not have it
    kind: type | tuple[type, ...] | None = None  # its type where it may be None
    none: Any = None  # what earlier versions wrote in place of None


KEYS = {
    "init_from": {
        "path": Key(None, SEVERAL, none=""),
        "layout": Key(None, str, none=""),
        "into": Key(None, SEVERAL, none=""),
        "expects": Key(None, SEVERAL, none=""),
        "inflate": Key(None, str, none=""),
        "new_head": Key(False),
        "keep_head": Key(False),
        "skip": Key(()),
        "partial": Key(False),
    },
    "norm": {"group_size": Key(kind=int), "frozen": Key()},
    "data": {"manifest": Key(), "workers": Key(kind=int, none=-1), "fraction": Key(1.0)},
    "normalize": {"mean": Key((123.675, 116.28, 103.53)), "std": Key((58.395, 57.12, 57.375))},
    "train": {
        "batch": Key(),
        "micro_batch": Key(kind=int),
        "epochs": Key(kind=int),
        "steps": Key(None, int, none=0),
        "ema": Key(),
        "validate_epochs": Key(),
        "checkpoint_steps": Key(),
        "log_steps": Key(),
        "loss": Key(None, str),  # None: softmax, or sigmoid where videos may have several labels
        "loss_reduction": Key("sum"),
        "label_smoothing": Key(0.0),
        "mixup": Key(0.0),
        "cutmix": Key(0.0),
        "color_jitter": Key(()),
        "rand_augment": Key(()),
        "erasing": Key(0.0),
        "class_balance": Key(None, str),
        "freeze": Key(None, SEVERAL),
        "patience": Key(None, int),
        "keep": Key(2),
    },
    "optimizer": {
        "kind": Key("sgd"),
        "momentum": Key(),
        "nesterov": Key(),
        "weight_decay": Key(),
        "decay_norm": Key(),
        "clip_norm": Key(0.0),
        "head_rate": Key(1.0),
        "layer_decay": Key(1.0),
    },
    "schedule": {
        "kind": Key(),
        "learning_rate": Key(),
        "warmup_epochs": Key(),
        "drop_epochs": Key(),
        "drop_steps": Key(()),
        "drop_factor": Key(0.1),
    },
    "plateau": {"patience": Key(), "threshold": Key(), "drops": Key()},
    "test": {
        "split": Key("test"),
        "clips": Key(),
        "number": Key(),
        "crop": Key("center"),
        "flip": Key(False, bool),  # None: where the set allows it
        "average_clips": Key(),
        "batch": Key(),
        "allow_partial": Key(),
    },
    "clip": {
        "frames": Key(),
        "stride": Key(),
        "short_side": Key(),
        "size": Key(),
        "crop": Key(),
        "flip": Key(kind=bool),
        "jitter": Key(()),
        "segments": Key(0),
        "streams": Key(("rgb",)),
        "strides": Key(()),
        "flow_method": Key("tvl1"),
        "fps": Key(None, float),
    },
}
RENAMED = {  # old name -> new name, by section
    "train": {"accumulate": "micro_batch"},  # which counted micro-batches, not the videos in one
    "test": {"average": "average_clips"},
    "normalize": {"deviation": "std"},
}
VALUES = ("seed", "dtype")  # which are no sections
NETWORKS = ("model", "teacher")  # sections whose keys are those of the network that they name
_NEW = {name for name, keys in KEYS.items() if all(key.before is not ALWAYS for key in keys.values())}  # whole sections
_LEFT_OUT = {"clip", "schedule.drop_factor"}  # by recipes of this version too


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config in the keys of this version, with what its version meant under those that it does not have."""
    if not KEYS.keys() & config.keys():  # of no run
        return dict(config)
    return {name: complete_section(name, value) for name, value in (dict.fromkeys(_NEW, {}) | dict(config)).items()}


def complete_section(name: str, section: Any) -> Any:
    """The same of a section, or of a value that is none."""
    if name not in KEYS:
        return section
    later = {key: row.before for key, row in KEYS[name].items() if row.before is not ALWAYS}
    return later | _translated(name, section)


def complete_recipe(config: ConfigDict) -> ConfigDict:
    """The same of a config that is given, be it by a recipe of this version or by one that was copied from an earlier.

    But for what recipes may leave out, as it is not asked for. What is None can be set to a value of the key's type,
    and to no other.
    """
    sections = {}
    for name in (name for name in KEYS if name in config or name in _NEW):
        found = config.get(name, ConfigDict())
        sections[name] = {
            key: value
            for key, value in complete_section(name, found.to_dict()).items()
            if key in found or not {name, f"{name}.{key}"} & _LEFT_OUT
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
    """Whether a section is already so, and its keys that are None can be set to values of one type only."""
    typed = all(value is not None or found.get_type(key) is not type(None) for key, value in found.items())
    return typed and found.to_dict() == section


def _typed(row: Key, value: Any) -> Any:
    """A value that a recipe gives a key; one that may be None, with the type of others that it can be set to."""
    return value if row.kind is None else config_dict.FieldReference(value, field_type=row.kind)


def unknown(config: Mapping[str, Any]) -> list[str]:
    """The keys, as in `--config.KEY`, that no version has had; of networks their names decide, not this."""
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
    """The videos in a micro-batch where a batch is cut into so many; None: one, the whole batch.

    Raises:
      UserError: they do not divide it.
    """
    if accumulate < 1 or batch % accumulate:
        raise UserError(f"train.accumulate is {accumulate}, which does not divide train.batch={batch}.")
    return None if accumulate == 1 else batch // accumulate


def _split(value: Any) -> Any:
    """Several strings, which earlier versions wrote as one with commas."""
    return tuple(value.split(",")) if isinstance(value, str) and "," in value else value
