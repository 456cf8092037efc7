"""Runs a command, or a Python file, of the documentation as it stands there, but small: `small MODULE ARGUMENTS`.

The text is not changed. The embedded set has few videos, networks have few channels, clips are small, and training
takes one epoch; but what a flag of the text sets stays.
"""

import functools
import re
import runpy
import sys

from jax_video import config_flag, networks
from jax_video.data.sources import motions

SET = dict(train=16, val=8, test=8, frames=20, width=48, height=40)  # of `motions`
SIDE = 32


def main() -> None:
    _, module, *arguments = sys.argv
    motions.make = functools.partial(motions.make, **SET)
    if module.endswith(".py"):
        read = config_flag.read_recipe

        def read_small(text):
            config = read(text)
            for key, value in small(text).items():
                section, _, name = key.rpartition(".")
                with config.ignore_type():
                    (config[section] if section else config)[name] = value
            return config

        config_flag.read_recipe = read_small
        sys.argv = [module, *arguments]
        runpy.run_path(module, run_name="__main__")
        return
    sys.argv = [module, *arguments, *extra(module, arguments)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def extra(module: str, arguments: list[str]) -> list[str]:
    """The flags that make a command small, but for those that it has."""
    given = {re.match("--?([^=]*)", word)[1] for word in arguments if word.startswith("-")}
    if module == "jax_video.prepare" and "benchmark" in given:
        return ["--benchmark_seconds=.2"]
    if module != "jax_video.main" or "config" not in given or "print_config" in given or "help" in given:
        return []
    text = next(word.partition("=")[2] for word in arguments if word.startswith("--config="))
    flags = {f"config.{key}": value for key, value in small(text).items()}
    return [f"--{key}={value}" for key, value in flags.items() if key not in given]


def small(text: str) -> dict[str, object]:
    """{key of a config: its small value}."""
    config = config_flag.load(text)
    names = [section for section in ("model", "teacher") if config.get(section)]
    values: dict[str, object] = {
        "dtype": "float32",
        "data.workers": 0,
        "train.log_steps": 1,
        "train.validate_epochs": 1,
        "test.batch": 4,
    }
    for section in names:
        keywords = networks.find(config[section].name).keywords
        if "width" in keywords:
            values[f"{section}.width"] = 1 / 16
        if "layers" in keywords:
            stages, recipe = networks.find(config[section].name).stages, networks.find(config[section].name).recipe
            values[f"{section}.layers"] = (2, 1, 1, 1) if recipe == "st_resnet" else (1,) * stages
    if "size" not in networks.find(config.model.name).bound:
        values |= {"clip.size": SIDE, "clip.jitter": ()}
        if "flow" not in config.clip.get("streams", ()):  # which is stored at one short side
            values["clip.short_side"] = SIDE + 4
    values |= {"train.epochs": 1} if config.train.epochs else {"train.steps": 2}
    values["train.batch"] = 8
    if config.norm.group_size:
        values["norm.group_size"] = 4
    values |= {"uniform": {"test.number": 2}, "spread": {"test.number": 5}}.get(config.test.clips, {})
    return {key: value for key, value in values.items() if value is not None}


if __name__ == "__main__":
    main()
