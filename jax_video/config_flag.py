"""The flag --config: a recipe by name or as a file, its arguments, and where the values of its config come from."""

import contextlib
import difflib
import importlib.machinery
import importlib.util
import inspect
import itertools
import os
import pathlib
import re
import sys
import textwrap
import traceback
import types
from collections.abc import Iterable
from typing import Any, cast

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from jax_video import networks, recipe, saved
from jax_video.errors import UserError

_NEEDED = ("model", "norm", "train")  # sections of a config

flags.disclaim_key_flags()  # `define` defines the flag for the module that calls it


def define(help_string: str) -> None:
    """Define the flag --config."""
    config_flags.DEFINE_config_file("config", None, help_string, flag_values=flags.FLAGS)
    flags.FLAGS["config"].parser = _Parser()
    parsers: dict[Any, flags.ArgumentParser] = {
        **{int: flags.IntegerParser(), float: flags.FloatParser(), bool: flags.BooleanParser()},
        **{str: flags.ArgumentParser(), saved.SEVERAL: _Several()},
    }
    for kind, parser in parsers.items():
        config_flags.register_flag_parser_for_type(kind, _OrNone(parser))


def recipes() -> dict[str, pathlib.Path]:
    """The files of this project's recipes by name: inside of the package where it is installed, or else beside it."""
    package = pathlib.Path(__file__).parent
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def load(text: str) -> ConfigDict:
    """The config of a recipe, `NAME[:key=value,...]` or `FILE.py[:key=value,...]`, in the keys of this version.

    Raises:
      flags.Error: there is no recipe of this name, the file is no recipe, or it refuses the arguments.
      OSError: there is no such file.
    """
    file, colon, argument = text.partition(":")
    module = _module(file)
    if not callable(getattr(module, "get_config", None)):
        raise flags.Error(f"--config: {file} is no recipe: it has no function get_config. See configs/stc.py.")
    try:
        config = module.get_config(*[argument] * bool(colon))
    except (TypeError, ValueError) as error:
        raise flags.Error(str(error)) from error
    except Exception as error:
        raise flags.Error(f"--config: get_config of {_fault(file, error)}") from error
    if not isinstance(config, ConfigDict):
        raise flags.Error(f"--config: get_config of {file} gives a {type(config).__name__}, no ConfigDict.")
    if missing := [name for name in _NEEDED if name not in config]:
        raise flags.Error(
            f"--config: get_config of {file} gives a config without {', '.join(missing)}: jax_video.recipe.config "
            "makes one with all sections, as in configs/stc.py."
        )
    return saved.complete_recipe(config)


def add_keywords(config: ConfigDict) -> set[str]:
    """Add to a config the keywords of its networks that the recipe leaves at their defaults; return the added keys."""
    added = set()
    with config.unlocked():
        for section in filter(config.get, saved.NETWORKS):
            network = networks.NETWORKS.get(config[section].get("name"))
            for key, default in network.keywords.items() if network else ():
                if key not in config[section]:
                    kind = networks.KINDS.get(key)
                    config[section][key] = config_dict.placeholder(kind) if kind and default is None else default
                    added.add(f"{section}.{key}")
    return added


def missing(text: str) -> str:
    """The message for a recipe's file that is missing."""
    file = text.partition(":")[0]
    stem = pathlib.Path(file).stem
    example = f"{stem}, the recipe of this package" if stem in recipes() else "configs/stc.py"
    if file and pathlib.Path(file).is_dir():
        return f"--config: {file!r} is a folder; a recipe is a name or a Python file: for example --config={example}"
    return f"--config: there is no file {file!r}: for example --config={example}"


def read_recipe(text: str | os.PathLike) -> ConfigDict:
    """The config of a recipe, as `--config` takes it: `NAME[:key=value,...]` or `FILE.py[:key=value,...]`.

    What follows from its values, such as BatchNorm's groups from the micro-batch, training finds (`recipe.resolve`), so
    that it follows from what is set in between.

    Raises:
      UserError: there is no such recipe or file, or it refuses the arguments.
    """
    try:
        return load(os.fspath(text))
    except OSError as error:
        raise UserError(missing(os.fspath(text))) from error
    except flags.Error as error:
        raise UserError(str(error)) from error


def read(*, resolve: bool = True) -> tuple[ConfigDict, str]:
    """The config that the command line asks for, resolved unless that is not wanted, and a name for its run.

    Raises:
      UserError: the flag was not given, or its values do not fit each other.
    """
    if flags.FLAGS.config is None:
        raise UserError("--config is missing: for example --config=configs/stc.py")
    file, argument = _given()
    name = [pathlib.Path(file).stem, re.sub(r"[^\w=.,]+", "_", argument).strip("_")]
    config = recipe.resolve(_unresolved()) if resolve else _unresolved()
    return config.lock(), "-".join(filter(None, name))


def chosen() -> set[str]:
    """Keys of network, clips, test and data that the command line sets: by a flag of their own, or by an argument of
    the recipe, with what follows from it; but not by the name of the network, or of the recipe."""
    sections, whole = ("model", "clip", "test", "data"), ("argument model=", "argument recipe=")
    named = (key for key, origin in _from_arguments().items() if not origin.startswith(whole))
    return _overridden() | {key for key in named if key.startswith(tuple(f"{name}." for name in sections))}


def note_kept_recipe() -> None:
    """Print a note where a flag names the set, and the recipe would have other values with it as its argument: recipes
    are small on the embedded set."""
    file, argument = _given()
    items, name = [*filter(None, argument.split(",")), *_linked(file)], flags.FLAGS.config.data.manifest
    by_flag = _overridden()
    if "data.manifest" not in by_flag or any(item.partition("=")[0] == "data" for item in items):
        return
    try:
        ours, other = (_flat(load(_with(file, given))) for given in (items, [*items, f"data={name}"]))
    except flags.Error:  # the recipe has no such argument
        return
    text = _with(file, [*filter(None, argument.split(",")), f"data={name}"])
    changed = [key for key, value in ours.items() if other.get(key, value) != value and key not in by_flag]
    if changed:
        recipe.note(
            f"--config.data.manifest={name} keeps the recipe for {ours['data.manifest']}. --config={text} is "
            f"another, with {changed[0]}={other[changed[0]]} in place of {ours[changed[0]]}"
            f"{f' and {len(changed) - 1} others' if len(changed) > 1 else ''}."
        )


def describe() -> str:
    """The resolved config, one value a line: key, value, and where the value comes from."""
    config, given = _flat(read()[0]), _flat(_unresolved())
    origins = dict.fromkeys(config, "recipe") | _from_arguments() | _that_give_way()
    origins |= {key: f"--config.{key}" for key in _overridden()}
    for key, value in config.items():
        if value != given.get(key):
            origins[key] = "derived" if origins[key] == "recipe" else f"derived, from {given[key]} by {origins[key]}"
    file, argument = _given()
    width, column = max(map(len, config)), min(40, max(len(repr(value)) for value in config.values()))
    lines = [f"{key:{width}} = {value!r:{column}}  # {origins[key]}" for key, value in config.items()]
    return "\n".join([f"# {_find(file)}{f' with {argument}' if argument else ''}", *lines])


def list_recipes() -> str:
    """Name, first line and arguments of every recipe, for a command's help."""
    lines = ["Recipes, as --config=NAME:key=value,... (or --config=FILE.py:..., also one that you have copied):"]
    for name, path in recipes().items():
        module = _module(str(path))
        title = (inspect.getdoc(module) or "").partition("\n")[0]
        shown = (key if isinstance(value, type) else f"{key}={value}" for key, value in module.ARGUMENTS.items())
        lines += textwrap.wrap(f"{name}: {title}", 116, initial_indent="  ", subsequent_indent="    ")
        lines += textwrap.wrap(", ".join(shown), 116, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


class _Parser(flags.ArgumentParser):
    """Parser of the flag's text into a config."""

    def __init__(self):
        self.unnamed: set[str] = set()  # keys of networks that the recipe leaves at their defaults

    def parse(self, argument: str) -> ConfigDict:
        """A config with all keys that can be set: the recipe's, under their names in earlier versions too, and the
        keywords of its networks."""
        config = load(_with(argument, _linked(argument)))
        self.unnamed = add_keywords(config)  # set anew: absl reuses one parser
        with config.unlocked():
            for section, old, new in _renamed():
                if section in config:
                    keys = config[section]
                    keys[old] = config_dict.placeholder(int) if old == "accumulate" else keys.get_ref(new)
        return config.lock()

    def flag_type(self) -> str:
        """What `--help` calls it."""
        return "recipe"


class _Several(flags.ArgumentParser):
    """Parser of one string, or several with commas, as they are: `recipe.resolve` splits them if several are meant."""

    def parse(self, argument: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """The argument, unchanged."""
        return argument


class _OrNone(flags.ArgumentParser):
    """Another parser that also takes the word None; `_unresolved` refuses it where there has to be a value."""

    def __init__(self, parser: flags.ArgumentParser):
        self._parser = parser

    def parse(self, argument: Any) -> Any:
        """None, or what the other parser makes of the argument."""
        return None if argument == "None" else self._parser.parse(argument)

    def flag_type(self) -> str:
        """What `--help` calls it."""
        return self._parser.flag_type()


def _find(name: str) -> pathlib.Path:
    """The file of a recipe.

    Raises:
      flags.Error: it is a bare name, and there is neither a recipe nor a file of that name.
    """
    known = recipes()
    in_checkout = re.fullmatch(r"configs/(\w+)\.py", name)
    if in_checkout and in_checkout[1] in known and not pathlib.Path(name).exists():  # works from any other folder, too
        return known[in_checkout[1]]
    if name in known or not re.fullmatch(r"[\w-]+", name) or pathlib.Path(name).exists():
        return known.get(name, pathlib.Path(name))
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    own = f"--config={name}.py" if pathlib.Path(f"{name}.py").exists() else "--config=FILE.py"
    raise flags.Error(
        f"--config: there is no recipe {name!r}{hint} There are {', '.join(known)}. A file of your own is {own}."
    )


def _module(name: str) -> types.ModuleType:
    path = _find(name)
    loader = importlib.machinery.SourceFileLoader(f"recipe_{path.stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None  # there is a loader
    module = sys.modules[loader.name] = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except ImportError as error:
        hint = ""
        if "configs" in str(error):  # `from configs import common`, as in version 0.1
            hint = " Recipes import jax_video.recipe in place of configs.common: see configs/stc.py."
        raise flags.Error(f"--config: {name} cannot be imported: {error}.{hint}") from error
    except OSError:
        raise
    except Exception as error:
        raise flags.Error(f"--config: {_fault(name, error)}") from error
    return module


def _fault(name: str, error: Exception) -> str:
    """What went wrong in a recipe's file, and in which line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(_find(name))]
    if isinstance(error, SyntaxError) or not lines:
        return f"{name} is no Python file, as a recipe is: {error}."
    return f"{name} fails in line {lines[-1]}: {type(error).__name__}: {error}."


def _parser() -> _Parser:
    return cast(_Parser, flags.FLAGS["config"].parser)


def _given() -> tuple[str, str]:
    """(recipe or file, arguments), as the command line names them."""
    file, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return file, argument


def _overridden() -> set[str]:
    """Keys that have a flag of their own on the command line, by the names of this version."""
    renamed = {f"{section}.{old}": f"{section}.{new}" for section, old, new in _renamed()}
    return {renamed.get(key, key) for key in config_flags.get_override_values(flags.FLAGS["config"])}


def _may_be_none(name: str) -> bool:
    section, _, key = name.partition(".")
    if section in saved.NETWORKS:
        return key in networks.KINDS
    row = saved.KEYS.get(section, {}).get(key)
    return row is not None and row.kind is not None


def _renamed() -> list[tuple[str, str, str]]:
    """[(section, name in earlier versions, name now)]."""
    return [(section, old, new) for section, names in saved.RENAMED.items() for old, new in names.items()]


def _unresolved() -> ConfigDict:
    """The config with what the command line sets, without the names of earlier versions."""
    config = flags.FLAGS.config.copy_and_resolve_references()
    values = config_flags.get_override_values(flags.FLAGS["config"])
    left_open = [name for name, value in values.items() if value in (None, (None,))]
    if wrong := [name for name in left_open if not _may_be_none(name)]:
        raise UserError(f"--config.{wrong[0]}=None: expected a value, as it is no key that may be left open.")
    with config.unlocked():
        config.update_from_flattened_dict(dict.fromkeys(left_open))
        for section, _, key in (name.partition(".") for name in _parser().unnamed - values.keys()):
            del config[section][key]
        for section, old, new in _renamed():
            if section not in config:
                continue
            value = config[section][old]
            del config[section][old]
            if f"{section}.{old}" not in values:
                continue
            if old == "accumulate":
                config.train.micro_batch = value = saved.micro_batch(config.train.batch, value)
            recipe.note(f"--config.{section}.{old} is now --config.{section}.{new}={value}")
        for name in _that_give_way():
            config.train[name.partition(".")[2]] = None
    return config


def _that_give_way() -> dict[str, str]:
    """{key: the flag that it gives way to}: steps, or epochs, of the recipe where the other is set."""
    values, found = config_flags.get_override_values(flags.FLAGS["config"]), {}
    if "train.epochs" in values and "train.steps" not in values:
        found["train.steps"] = "--config.train.epochs"
    if values.get("train.steps") and "train.epochs" not in values:  # 0 meant none
        found["train.epochs"] = "--config.train.steps"
    return found


def _linked(text: str) -> dict[str, str]:
    """{argument: flag} for each flag that sets a key for which the recipe has an argument.

    So `--config.clip.frames=32` acts as `frames=32`, with all that follows from it in the recipe.
    """
    arguments, found = getattr(_module(text.partition(":")[0]), "ARGUMENTS", {}), {}
    words = flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False)  # also those of --flagfile
    for word, following in itertools.pairwise([*words, ""]):
        if match := re.fullmatch(r"--?(config\.(?:clip|train)\.(\w+))(?:=(.*))?", word):
            value = following if match[3] is None else match[3]
            if match[2] in arguments and re.fullmatch("[1-9][0-9]*", value):  # or else the flag itself refuses it
                found[f"{match[2]}={value}"] = f"--{match[1]}"
    return found


def _with(text: str, items: Iterable[str]) -> str:
    """A recipe's name or file and its arguments, with further arguments added."""
    file, _, argument = text.partition(":")
    together = ",".join([*filter(None, [argument]), *items])
    return f"{file}:{together}" if together else text


def _from_arguments() -> dict[str, str]:
    """{key: argument or flag that its value comes from}: keys of the argument's name, and those that follow from it."""
    file, argument = _given()
    linked = _linked(file)
    items = [*filter(None, argument.split(",")), *linked]
    config, found = _flat(load(_with(file, items))), {}
    for place, item in enumerate(items):
        origin = linked.get(item, f"argument {item}")
        name, _, value = item.partition("=")
        if name == "data":  # without `recipe`, leaving it out would change other keys too
            found["data.manifest"] = origin
            continue
        keys = (f"{section}.{recipe.RENAMED.get(name, name)}" for section in ("model", "clip", "train"))
        found |= {key: origin for key in keys if str(config.get(key)) == value}
        with contextlib.suppress(flags.Error):  # other arguments may need this one
            other = _flat(load(_with(file, items[:place] + items[place + 1 :])))
            found |= {key: origin for key, entry in config.items() if other.get(key) != entry}
    return found


def _flat(config: ConfigDict) -> dict[str, Any]:
    """{"clip.frames": 16, "seed": 0, …}."""
    flat: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        flat |= {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
    return flat
