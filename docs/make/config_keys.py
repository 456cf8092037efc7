"""The page of config keys: type, default and meaning of each, and what each recipe sets."""

import importlib
import inspect
import re

from markdown import code, page, plain, table
from ml_collections import ConfigDict

from jax_video import config_flag, networks, recipe, saved

SECTIONS = {
    "data": "What is trained on.",
    "clip": "How clips are cut out of videos.",
    "normalize": "What is done to RGB.",
    "train": "How training goes.",
    "optimizer": "The optimizer.",
    "schedule": "The learning rate.",
    "plateau": "When `schedule.kind` is `plateau`.",
    "norm": "BatchNorm.",
    "init_from": "What training starts from.",
    "test": "How videos are tested.",
}
RECIPES = {
    "stc": "stc:data=data",
    "stc, small": "stc",
    "t3d": "t3d:data=data",
    "cost": "cost:data=data",
    "st_resnet": "st_resnet:data=data",
    "transfer": "transfer:data=data",
    "finetune": "finetune:data=data",
}
VALUES = {
    "seed": "Of everything that is drawn: initial weights, the order of videos, clips, crops.",
    "dtype": "Of the activations: `bfloat16` or `float32`. Weights, statistics and losses are float32.",
}


def pages() -> dict[str, str]:
    """{path below docs: text}."""
    assert SECTIONS.keys() == saved.KEYS.keys(), SECTIONS.keys() ^ saved.KEYS.keys()
    configs = {name: recipe.resolve(config_flag.load(text)) for name, text in RECIPES.items()}
    parts = [
        "Every value of a config can be set on the command line: `--config.train.batch=32`. `main --config=… "
        "--print_config` shows all of them and where each comes from.\n",
        "*By recipe* stands where recipes differ; [below](#what-each-recipe-sets) is what each sets. A value may be "
        "`None` where its type says so.\n",
        "## Values without a section\n",
        table(("key", "type", "default", "meaning"), [_row(name, text, configs) for name, text in VALUES.items()]),
    ]
    for section, what in SECTIONS.items():
        rows = [_row(f"{section}.{key}", row.meaning, configs, row) for key, row in saved.KEYS[section].items()]
        parts += [f"## {section}\n", f"{what}\n", table(("key", "type", "default", "meaning"), rows)]
    parts += ["## model, teacher\n", _model(), "## What each recipe sets\n", _differences(configs)]
    return {"reference/generated/config.md": page("Config keys", *parts)}


def _row(name: str, meaning: str, configs: dict[str, ConfigDict], key: saved.Key | None = None):
    assert meaning, f"{name}: jax_video/saved.py does not say what it means"
    values = [_value(config, name) for config in configs.values()]
    known = [value for value in values if value is not None]
    kinds = key.kind if key and key.kind else type(known[0]) if known else type(None)
    kind = "text, or several" if kinds == saved.SEVERAL else getattr(kinds, "__name__", str(kinds))
    kind = {"str": "text", "tuple": "several"}.get(kind, kind) + (", or `None`" if key and key.kind else "")
    same = all(value == values[0] for value in values)
    return code(name), kind, _shown(values[0]) if same else "*by recipe*", meaning


def _value(config: ConfigDict, name: str):
    section, _, key = name.rpartition(".")
    return config[section].get(key) if section else config[key]


def _shown(value) -> str:
    return code(str(value)) if value != () else "empty"


def _differences(configs: dict[str, ConfigDict]) -> str:
    names = [f"{section}.{key}" for section in SECTIONS for key in saved.KEYS[section]] + list(VALUES)
    rows = []
    for name in names:
        values = [_value(config, name) for config in configs.values()]
        if any(value != values[0] for value in values):
            rows.append((code(name), *(_shown(value).strip("`") for value in values)))
    return table(("key", *configs), rows)


def _model() -> str:
    """The keywords of networks: the default, whose they are, and what their class says of them."""
    found: dict[str, dict[str, list[str]]] = {}
    texts: dict[str, str] = {}
    for name, network in networks.NETWORKS.items():
        module, _, attribute = network.constructor.partition(":")
        texts = _arguments(getattr(importlib.import_module(module), attribute)) | texts
        for key, default in network.keywords.items():
            found.setdefault(key, {}).setdefault(_shown(default), []).append(name)
    rows = []
    for key, defaults in found.items():
        whose = [default if len(defaults) == 1 else f"{default} ({_few(names)})" for default, names in defaults.items()]
        everybody = sum(map(len, defaults.values()))
        several = "all" if everybody == len(networks.NETWORKS) else _few([n for ns in defaults.values() for n in ns])
        rows.append((code(f"model.{key}"), "; ".join(whose), several, plain(texts.get(key, ""))))
    intro = (
        "`model.name` is a [network](networks.md), and the other keys are that network's keywords. Knowledge transfer "
        "has a section `teacher` of the same form.\n\n"
    )
    return intro + table(("key", "default", "networks", "meaning"), rows)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _arguments(kind: type) -> dict[str, str]:
    """{argument: its text} of the Args of a class and of those that it extends."""
    texts: dict[str, str] = {}
    for each in kind.__mro__:
        section = re.search(r"^Args.*?:\n(.*?)(?=^\S|\Z)", inspect.getdoc(each) or "", re.MULTILINE | re.DOTALL)
        entries = re.findall(r"^  (\w[\w, ]*): (.*?)(?=^  \w|\Z)", section[1] if section else "", re.M | re.S)
        for names, text in entries:
            for name in names.split(", "):
                texts.setdefault(name, " ".join(text.split()))
    return texts
