"""Configs of earlier versions: what a key means that they did not have.

A run's config is saved with it, and is read by versions that know more keys. Each key that came later stands here with
the value that says what the versions before it did; so runs of all versions can be used, and gone on with.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

ALWAYS = object()  # the key has been there from the first version on
KEYS = {
    "init_from": {
        "path": "",
        "layout": "",
        "into": "",
        "expects": "",
        "inflate": "",
        "new_head": False,
        "keep_head": False,
        "skip": (),
    },
    "norm": {"group_size": ALWAYS, "frozen": ALWAYS},
    "data": {"manifest": ALWAYS, "workers": ALWAYS, "fraction": 1.0},
    "normalize": {"mean": (123.675, 116.28, 103.53), "deviation": (58.395, 57.12, 57.375)},
    "train": {
        "batch": ALWAYS,
        "accumulate": ALWAYS,
        "epochs": ALWAYS,
        "steps": 0,
        "ema": ALWAYS,
        "validate_epochs": ALWAYS,
        "checkpoint_steps": ALWAYS,
        "log_steps": ALWAYS,
        "loss_reduction": "sum",
    },
    "optimizer": {
        "momentum": ALWAYS,
        "nesterov": ALWAYS,
        "weight_decay": ALWAYS,
        "decay_norm": ALWAYS,
        "clip_norm": 0.0,
        "head_rate": 1.0,
    },
    "schedule": {
        "kind": ALWAYS,
        "learning_rate": ALWAYS,
        "warmup_epochs": ALWAYS,
        "drop_epochs": ALWAYS,
        "drop_steps": (),
        "drop_factor": 0.1,
    },
    "plateau": {"patience": ALWAYS, "threshold": ALWAYS, "drops": ALWAYS},
    "test": {
        "clips": ALWAYS,
        "number": ALWAYS,
        "crop": "center",
        "flip": False,
        "average": ALWAYS,
        "batch": ALWAYS,
        "allow_partial": ALWAYS,
    },
    "clip": {
        "frames": ALWAYS,
        "stride": ALWAYS,
        "short_side": ALWAYS,
        "size": ALWAYS,
        "crop": ALWAYS,
        "flip": ALWAYS,
        "jitter": (),
        "segments": 0,
        "streams": ("rgb",),
        "strides": (),
        "flow_method": "tvl1",
    },
}


def _later(section: str) -> dict[str, Any]:
    """Its keys that were not there from the first version on."""
    return {key: value for key, value in KEYS[section].items() if value is not ALWAYS}


_NEW = {name: {} for name, keys in KEYS.items() if ALWAYS not in keys.values()}  # sections that came later
_LEFT_OUT = {"clip", "schedule.drop_factor"}  # by recipes of this version too
VALUES = ("seed", "dtype")  # which are no sections
NETWORKS = ("model", "teacher")  # sections whose keys are those of the network that they name


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config, with what its version meant under the keys that came later."""
    if not KEYS.keys() & config.keys():  # of no run
        return dict(config)
    return {name: complete_section(name, value) for name, value in (_NEW | dict(config)).items()}


def complete_section(name: str, section: Any) -> Any:
    """The same of a section, or of a value that is none."""
    return section if name not in KEYS else {**_later(name), **section}


def complete_recipe(config: ConfigDict) -> ConfigDict:
    """The same of a config that is given, as by a recipe that was copied from an earlier version.

    But for what recipes may leave out, as it is not asked for.
    """
    lacking = {
        name: {
            key: value
            for key, value in _later(name).items()
            if key not in config.get(name, {}) and not {name, f"{name}.{key}"} & _LEFT_OUT
        }
        for name in KEYS
        if name in config or name in _NEW
    }
    if not any(lacking.values()):
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for name, values in lacking.items():
            if name not in config:
                config[name] = {}
            config[name].update(values)
    return config


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
            found += [f"{name}.{key}" for key in value if key not in keys]
    return found
