"""What recipes share: `key=value` arguments, values of keys that no paper states, and values that follow from others.

A recipe is a file with `get_config(argument)` that states the numbers of a paper; this project's are in configs/. It
imports this module and the table of networks, and may be copied anywhere.
"""

import difflib
import functools
import json
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jax_video import saved
from jax_video.data import copies, documents, remote
from jax_video.errors import UserError

EMBEDDED = "motions"  # the data set that is rendered on demand
_CONFIG = "config.json"  # in a run's folder
RENAMED = {"hold": "micro_batch"}  # arguments of earlier versions

_COMMON = {  # keys that say how a run goes, not what it computes; what papers decide has no value here
    "seed": 0,
    "dtype": "bfloat16",
    "model": {"remat": False},
    "norm": {"group_size": None, "frozen": False},
    "data": {"workers": None},  # None: two processes fewer than there are cores, 32 at most
    "train": {
        "micro_batch": None,
        "epochs": None,
        "ema": 0.0,
        "validate_epochs": 1,
        "checkpoint_steps": 1000,
        "log_steps": 50,
    },
    "schedule": {"warmup_epochs": 0, "drop_epochs": ()},
    "clip": {"fps": None},  # frames as they are stored, whatever their rate
    "plateau": {"patience": 10, "threshold": 1e-3, "drops": 3},
    "test": {"number": 10, "batch": 64, "allow_partial": False},
}
SMALL = {  # for tens to thousands of short videos on a CPU: a quarter of the width, clips of 56²
    "dtype": "float32",
    "data": {"workers": 0},
    "model": {"width": 0.25},
    "clip": {"short_side": 62, "size": 56, "crop": "random"},
    "train": {"batch": 16, "epochs": 10, "steps": None, "validate_epochs": 5, "log_steps": 20},
    "schedule": {"kind": "cosine", "warmup_epochs": 1, "drop_epochs": (), "drop_steps": ()},
    "test": {"batch": 16},
}


_COUNTS = ("epochs", "frames", "stride", "span", "size", "batch", "group")  # what these recipes' arguments count


def arguments(text: str, **defaults: Any) -> types.SimpleNamespace:
    """Parse a recipe's arguments: `arguments("frames=32", frames=16, stride=int)` -> frames=32, stride=None.

    Values take the type of their default; true and false are booleans. A type in place of a default means: None if the
    argument is not given, and else a value of this type.

    Raises:
      ValueError: an unknown key, or a value of another type.
    """
    values = {key: None if isinstance(default, type) else default for key, default in defaults.items()}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if key not in defaults and RENAMED.get(key) in defaults:
            note(f"The argument {key} is called {RENAMED[key]} now.")
            key, value = RENAMED[key], value if value != "0" else ""  # 0 meant none
        if key not in defaults or not equals:
            raise ValueError(f"unknown config argument {item!r}: expected key=value with one of {', '.join(defaults)}.")
        default = defaults[key]
        if isinstance(default, type) and not value:
            values[key] = None
            continue
        kind = default if isinstance(default, type) else type(default)
        try:
            values[key] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            expected = "a whole number" if default is int else f"a value like {default!r}"
            raise ValueError(f"config argument {item!r}: expected {expected}.") from None
        if key in _COUNTS and kind is int and (values[key] or 0) < 1:
            raise ValueError(f"config argument {item}: expected at least 1.")
    return types.SimpleNamespace(**values)


def write(folder: remote.Path, config: ConfigDict) -> None:
    """Write the config of a run to its folder, where `trained` reads it.

    Raises:
      OSError: it cannot be written.
    """
    remote.write_whole(folder / _CONFIG, [f"{json.dumps(config.to_dict(), indent=2)}\n".encode()])


def is_free(folder: remote.Path) -> bool:
    """Whether a folder has no config.json, or one of a run that was stopped before its first checkpoint."""
    try:
        found = documents.read(folder / _CONFIG)
    except FileNotFoundError:
        return True
    except documents.Damaged:
        return False
    return isinstance(found, dict) and {"model", "clip", "train"} <= found.keys()


def trained(weights: str) -> dict[str, Any]:
    """The config of the run, or export, in a folder, in the keys of this version; {} where there is no local folder.

    Of a folder in a store or behind a URL, that file alone is copied.

    Raises:
      ValueError: the folder is not that of a run.
      UserError: its store cannot be reached.
    """
    folder = pathlib.Path(weights)
    if remote.is_remote(weights):
        with copies.held(weights) as copy:
            if not copy.fetch([_CONFIG]):
                raise ValueError(
                    f"{weights} is not the folder of a run, or an export, as it has no {_CONFIG}. A weight file is "
                    "read from a disk: fetch it."
                )
            folder = copy.folder
    elif not weights or not folder.is_dir():
        return {}
    try:
        found = documents.read(folder / _CONFIG, {"*": object})
        found = found["run"]["config"] if "run" in found else found
        if wrong := documents.defect(found, {"model": {"name": str}, "clip": dict, "test": dict, "normalize": dict}):
            raise documents.Damaged(wrong)
        return with_tuples(saved.complete(found))
    except (FileNotFoundError, KeyError, TypeError, documents.Damaged) as error:
        raise ValueError(f"{weights} is not the folder of a run, or an export: its {_CONFIG}: {error}.") from error


def with_tuples(value: Any) -> Any:
    """A value from JSON with tuples in place of lists, as recipes write it."""
    if isinstance(value, dict):
        return {key: with_tuples(each) for key, each in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


def is_small(given: types.SimpleNamespace) -> bool:
    """Whether the argument `recipe` is small; if it is not given, whether the data set is the embedded one.

    Raises:
      ValueError: it is neither small nor paper.
    """
    if given.recipe not in (None, "small", "paper"):
        raise ValueError(f"unknown recipe {given.recipe!r}: expected small or paper.")
    return given.recipe == "small" if given.recipe else given.data == EMBEDDED


def config(**sections: Any) -> ConfigDict:
    """A config of these sections, with values for the keys that no paper states.

    Raises:
      ValueError: a key is unknown (`saved.KEYS`), or one that papers decide is left out.
    """
    merged = sections | {
        name: common | sections.get(name, {}) if isinstance(common, dict) else sections.get(name, common)
        for name, common in _COMMON.items()
    }
    _check_known(merged)
    missing = [
        f"{name}.{key}"
        for name, keys in saved.KEYS.items()
        for key, row in keys.items()
        if row.before is saved.ALWAYS and key not in merged.get(name, {})
    ]
    if missing:
        raise ValueError(f"a recipe says what {', '.join(missing)} is.")
    return saved.complete_recipe(ConfigDict(merged))


def _check_known(config: Mapping[str, Any]) -> None:
    """Raise UserError for keys that no section has."""
    if unknown := saved.unknown(config):
        known = [f"{name}.{key}" for name, keys in saved.KEYS.items() for key in keys]
        nearest = difflib.get_close_matches(unknown[0], known, 1)
        meant = f" Did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"unknown keys {', '.join(unknown)}: jax_video/saved.py lists those that there are.{meant}")


def train_epochs(config: ConfigDict, epochs: int) -> None:
    """Make a recipe's config train for so many epochs; the rate drops at the same shares of the run as before."""
    train, schedule = config.train, config.schedule
    whole, drops = (train.steps, schedule.drop_steps) if train.steps else (train.epochs, schedule.drop_epochs)
    schedule.update(drop_epochs=tuple(epochs * drop / whole for drop in drops), drop_steps=())
    train.update(epochs=epochs, steps=None)


def resolve(config: ConfigDict, *, flip: bool | None = None, multilabel: bool | None = None) -> ConfigDict:
    """The config of a run: in the keys of this version, with the values that follow from others.

    `train.micro_batch` becomes the largest number, up to the one asked for, that divides the batch and keeps groups of
    BatchNorm whole, or else the smallest such number; if it is the whole batch, it becomes None. Without groups, the
    clips of a micro-batch become one group. If `train.steps` is given, `train.epochs` becomes None. A resolved config
    stays as it is.

    Args:
      flip: whether the data set may be mirrored (`Manifest.flip`), for `clip.flip` and `test.flip` if they are None (a
        test is then never mirrored where `clip.flip` is False); None leaves them so.
      multilabel: whether its videos may have several labels: then a `train.loss` of None becomes sigmoid.

    Raises:
      UserError: there are neither epochs nor steps, the micro-batch is below 1, or a key is unknown.
    """
    _check_known(config.to_dict())
    _say_what_gives_way(config.train)
    config = saved.complete_recipe(config).copy_and_resolve_references()
    train, norm = config.train, config.norm
    if flip is not None:
        if config.clip.get("flip", False) is None:
            config.clip.flip = flip
        if config.test.get("flip", False) is None:  # what training has never mirrored, a test does not either
            config.test.flip = flip and config.clip.get("flip") is not False
    if multilabel and train.get("loss") is None:
        train.loss = "sigmoid"
    if train.steps is None and train.get("epochs", 1) is None:  # a config for a test alone may lack the epochs
        raise UserError("neither train.epochs nor train.steps is given: say how long to train.")
    if train.get("micro_batch") is None:
        return config
    if train.micro_batch < 1:
        raise UserError(f"train.micro_batch is {train.micro_batch}: expected at least 1.")
    clips = max(1, config.clip.get("segments", 0))  # per video; groups count clips
    group = norm.group_size or 1
    parts = [count for count in range(1, train.batch + 1) if train.batch % count == 0 == count * clips % group]
    least = min(parts, default=train.batch)
    count = max((count for count in parts if count <= train.micro_batch), default=least)
    if count > train.micro_batch:
        note(f"Groups of BatchNorm have {group} clips: {count} videos at once, more than train.micro_batch asks for.")
    elif count < min(train.micro_batch, train.batch):
        divides = train.batch % train.micro_batch == 0
        why = f"groups of BatchNorm have {group} clips" if divides else f"it does not divide train.batch={train.batch}"
        over = "" if norm.frozen or norm.group_size else ", over which BatchNorm is taken"
        note(f"train.micro_batch={train.micro_batch}: {why}. {count} videos at once{over}.")
    train.micro_batch = count if count < train.batch else None
    if not norm.frozen:
        norm.group_size = norm.group_size or count * clips
    return config


def micro_batches(config: ConfigDict) -> int:
    """How many micro-batches a batch of a resolved config is cut into, one after another."""
    return 1 if config.train.micro_batch is None else config.train.batch // config.train.micro_batch


def _say_what_gives_way(train: ConfigDict) -> None:
    """Say that steps count in place of epochs, where a config has both."""
    if train.get("steps") and train.get("epochs"):  # 0 meant none
        note(f"train.steps={train.steps:,} counts, and not train.epochs={train.epochs}: for that set train.steps=None.")


@functools.cache
def note(text: str) -> None:
    """Print a text on stderr, once."""
    print(text, file=sys.stderr)
