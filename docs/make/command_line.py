"""The pages of commands: what --help says of each, and a row for each flag."""

import importlib
import inspect
import re

from absl import flags
from markdown import block, code, page, plain, table

from jax_video import config_flag, networks
from jax_video.__main__ import COMMANDS
from jax_video.data import sources

FOLDER = "reference/generated"
_TAKES = {"bool": "", "string": "text", "comma separated list of strings": "several, with commas"}


def pages() -> dict[str, str]:
    """{path below docs: text}."""
    found = {f"{FOLDER}/{name}.md": _command(name) for name in COMMANDS}
    return found | {f"{FOLDER}/recipes.md": _recipes()}


def _command(name: str) -> str:
    what, arguments = COMMANDS[name]
    module = importlib.import_module(f"jax_video.{name}.__main__" if name == "models" else f"jax_video.{name}")
    parts = [
        f"{what[0].upper()}{what[1:]}. `jax-video {name}`, where the package is installed, is the same.\n",
        block(f"python -m jax_video.{name} {arguments}", "console"),
        "## What it does\n",
        block(inspect.getdoc(module) or ""),
        "## Flags\n",
        table(("flag", "takes", "default", "meaning"), [_row(flag) for flag in _flags(module)]),
    ]
    if name == "prepare":
        parts += ["## Sources\n", "The first argument of `prepare`, and the flags that each source has.\n", _sources()]
    if name == "main":
        parts.append("`--config.SECTION.KEY=VALUE` sets a value: [every key](config.md), [every recipe](recipes.md).\n")
    return page(f"jax_video.{name}", *parts)


def _flags(module) -> list[flags.Flag]:
    """The flags that a command defines, as it defines them; afterwards they are gone again."""
    before = set(flags.FLAGS)
    module.define_flags()
    found = [flags.FLAGS[name] for name in flags.FLAGS if name not in before]
    for flag in found:
        delattr(flags.FLAGS, flag.name)
    return sorted(found, key=lambda flag: flag.name)


def _row(flag: flags.Flag) -> tuple[str, str, str, str]:
    kind = flag.parser.flag_type() if flag.parser else flag.flag_type()
    choices = getattr(flag.parser, "enum_values", None)
    takes = ", ".join(map(code, choices)) if choices else _TAKES.get(kind, kind)
    default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
    default = code("" if default is None or default is False else str(default))
    if flag.name == "workers":  # of the machine that this page is made on
        default = "one for each core"
    return code(f"--{flag.name}"), takes, default, plain(re.sub("^<.*?>: ", "", flag.help))


def _sources() -> str:
    rows = []
    for name, source in sources.SOURCES.items():
        told = [code(f"--{parameter.name}") for parameter in source.parameters]
        rows.append((code(sources.written(name)), plain(source.help), ", ".join(told)))
    rows.append(
        (code("manifest"), "the set that `--out` holds already: looked at again, moved, packed, given its flow", "")
    )
    return table(("source", "what it reads", "its flags"), rows)


def _recipes() -> str:
    parts = [
        "A recipe is a file of `configs/`. `--config=NAME:key=value,...` takes its arguments, from any folder; a copy "
        "of the file works like it (`--config=FILE.py`).\n"
    ]
    for name in config_flag.recipes():
        module = importlib.import_module(f"configs.{name}")
        trained = [code(network) for network, record in networks.NETWORKS.items() if record.recipe == name]
        title, _, text = (inspect.getdoc(module) or "").partition("\n")
        rows = [
            (code(key), value.__name__ if isinstance(value, type) else type(value).__name__, _default(value))
            for key, value in module.ARGUMENTS.items()
        ]
        parts += [f"## {name}\n", f"{title}\n", table(("argument", "type", "default"), rows)]
        if trained:
            parts += [f"Networks: {', '.join(trained)}.\n"]
        parts += [block(text)]
    return page("Recipes", *parts)


def _default(value) -> str:
    return "" if isinstance(value, type) else code(str(value).lower() if isinstance(value, bool) else str(value))
