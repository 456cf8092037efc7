"""Weights by our names, read from a run's folder or from a file, before they are fitted to a network."""

import dataclasses
import json
import os
import pathlib
import sys

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import models, networks, recipe, run, saved
from jax_video import state as state_lib
from jax_video.data import copies, documents, remote, samples
from jax_video.errors import UserError
from jax_video.weights import files, names, provenance, public

_PROTOCOL = {"clips": str, "number": int, "crop": str, "flip": bool | None, "average_clips": str}  # of section `test`


@dataclasses.dataclass
class Source:
    """Weights by our names, before they are fitted to a network."""

    path: str
    layout: str  # "" for a run
    arrays: dict[str, np.ndarray]
    origin: dict | None  # for a file: `names.Translation.origin`
    problems: list[str]
    num_classes: int | None  # None: there is no classifier
    classes: tuple[str, ...] | None = None  # their names; None: not known
    headless: bool = False  # whether no classifier was trained, nor anything else after the features
    version: str = ""  # of the layout's code, and what says so: `provenance.version`
    signs: str = ""
    normalize: dict | None = None  # section `normalize` of the run that a file was exported from; None: not known
    model: dict | None = None  # section `model` of that run, with all keywords; None: not known
    clip: dict | None = None  # section `clip` of that run; None: not known
    test: dict | None = None  # what section `test` of that run says of its protocol; None: not known
    several: bool = False  # whether they were trained on videos with several labels


def layout_of(path: str | os.PathLike, layout: str) -> str:
    """The layout of weights: the one that is given, or that of the public weights that `path` names.

    Raises:
      UserError: there are both, and they differ; or there are no public weights of that name.
    """
    known = public.find(os.fspath(path))
    if known and layout not in ("", known.layout):
        raise UserError(f"{path} is in layout {known.layout}, and not in {layout}: leave the layout out")
    return known.layout if known else layout


def read_source(
    path: str | pathlib.Path, expected: str, layout: str, config: ConfigDict, mesh: Mesh, *, into: str = ""
) -> Source:
    """The weights in a run's folder, which must be of the network `expected` if that is not empty, or in a file.

    Prints where that run's config differs from that of the network's part `into`, or of all of it, which takes them.

    Raises:
      UserError: see `start.read`.
    """
    name = os.fspath(path)
    if known := public.find(name):
        layout, path = layout_of(name, layout), public.fetch(name)
    else:
        path = name if remote.is_remote(name) else pathlib.Path(name)
        if layout and isinstance(path, str):
            raise UserError(
                f"{copies.without_password(path)}: a weight file, as those of a layout ({layout}) are, is read from a "
                "disk: fetch it"
            )
    if isinstance(path, pathlib.Path) and not path.exists():
        raise UserError(f"{path}: there is no such weight file or run's folder")
    if isinstance(path, pathlib.Path) and not path.is_dir():
        if not layout:
            raise UserError(f"{path}: a weight file needs a layout: one of {', '.join(names.LAYOUTS)}")
        file = _read_file(path, name if known else "")
        if file.passed_over and jax.process_index() == 0:
            print(f"{path}: {file.passed_over}", file=sys.stderr)
        version, signs = provenance.version(layout, file)
        found, told = names.to_ours(layout, file.weights), _sampling(path, file.notes)
        return Source(
            name if known else str(path),
            layout,
            found.arrays,
            found.origin,
            found.problems,
            _num_classes(found.arrays, networks.find(config.model.name).head),
            version=version,
            signs=signs,
            normalize=_normalize(path, file.notes),
            model=_model(path, file.notes),
            clip=told.get("clip"),
            test=told.get("test"),
            several=file.notes.get("loss") == "sigmoid" or bool(known and known.multilabel),
        )
    if layout:
        raise UserError(f"{path} is a folder, so a run's; a layout ({layout}) is for weight files")
    trained = run.load(path, mesh=mesh)
    if expected and trained.config.model.name != expected:
        raise UserError(f"{path} is a run of {trained.config.model.name}, where one of {expected} is expected")
    arrays, transferred = state_lib.named_leaves(trained.weights), bool(trained.config.get("teacher"))
    if transferred:
        arrays = {name.replace("/student/", "/", 1): leaf for name, leaf in arrays.items() if "/student/" in name}
        network = networks.find(trained.config.model.name)
        untrained = (network.head, *network.after)
        arrays = {name: leaf for name, leaf in arrays.items() if name.split("/")[1] not in untrained}
    theirs = {section: trained.meta.config[section] for section in ("model", "normalize")}
    whose = copies.without_password(str(path))
    print_differences(f"The run in {whose}", theirs, config, into)
    # A conversion without names has numbered the classes.
    number = len(trained.classes)
    named = trained.meta.manifest or trained.classes != tuple(map(str, range(number)))
    classes, clip = trained.classes if named else None, trained.meta.config["clip"]
    return Source(whose, "", arrays, None, [], number, classes, transferred, clip=clip)


def print_differences(whose: str, theirs: dict, ours: ConfigDict, into: str = "") -> None:
    """Print where another run's network, or its normalisation of RGB, differs from what the config says here.

    Args:
      whose: the run, in words.
      theirs: the sections of its config to compare: `model` and `normalize`, or the former.
      into: the part of the network that takes its weights.
    """
    here = {"model": "teacher" if into == "teacher" else "model", "normalize": "normalize"}

    def told(section: str, values: dict | ConfigDict) -> dict:
        values = dict(values)
        if section != "normalize" and values["name"] in networks.NETWORKS:  # what is left out has its default
            values = models.defaults(values["name"]) | values
        return json.loads(json.dumps(values))

    changed = [
        f"{here[section]}.{key}: there {there[key]}, here {value}"
        for section, there in {section: told(section, values) for section, values in theirs.items()}.items()
        for key, value in told(section, ours[here[section]]).items()
        if there.get(key, value) != value and key not in ("remat", "consensus")  # with which clips are seen the same
    ]
    if changed and jax.process_index() == 0:
        print(f"{whose} has another config: {'; '.join(changed)}.", file=sys.stderr)


def _read_file(path: pathlib.Path, name: str) -> files.WeightFile:
    """What a weight file holds; `name` is that of public weights which it is a copy of, or ""."""
    try:
        return files.read_file(path)
    except files.WeightFileError as error:
        if not name or isinstance(error.__cause__, ImportError):  # the file is as it should be, but PyTorch is not here
            raise
        advice = f"It is the copy of {name}: remove it, and the same command fetches it again."
        raise UserError(f"{str(error).rstrip('.')}. {advice}") from error


def _normalize(path: pathlib.Path, notes: dict[str, str]) -> dict | None:
    """Section `normalize` of the run, perhaps of an earlier version, that a file was exported from; None: not known."""
    if "normalize" not in notes:
        return None
    try:
        section = saved.complete_section("normalize", documents.parse(notes["normalize"], {"*": [float]}))
        state_lib.Normalization.of(section)
    except (documents.Damaged, UserError) as error:
        raise UserError(f"{path} does not tell how RGB was normalised ({error}): export the weights again") from error
    return recipe.with_tuples(section)


def _model(path: pathlib.Path, notes: dict[str, str]) -> dict | None:
    """Section `model` of the run that a file was exported from; None: not known."""
    try:
        return documents.parse(notes["model"], {"name": str}) if "model" in notes else None
    except documents.Damaged as error:
        raise UserError(f"{path} does not tell its network's keywords ({error}): export the weights again") from error


def _sampling(path: pathlib.Path, notes: dict[str, str]) -> dict[str, dict]:
    """Sections `clip` and `test` of the run that a file was exported from, those that the file tells."""
    found: dict[str, dict] = {}
    try:
        for name in notes.keys() & {"clip", "test"}:
            section = saved.complete_section(name, documents.parse(notes[name], {"*": object}))
            found[name] = recipe.with_tuples(section)
        if "clip" in found:
            samples.Sampling(**found["clip"])
        if "test" in found:
            if wrong := documents.defect(found["test"], _PROTOCOL):
                raise documents.Damaged(wrong)
            found["test"] = {key: found["test"][key] for key in _PROTOCOL}
    except (documents.Damaged, TypeError, UserError) as error:
        raise UserError(f"{path} does not tell the clips of its run ({error}): export the weights again") from error
    return found


def _num_classes(arrays: dict[str, np.ndarray], head: str) -> int | None:
    """How many classes the classifier of a network, or of each stream, has; None: there is none, or they differ.

    Args:
      head: what the network that is to be started calls its classifier; that of others counts where it has none.
    """
    sizes: dict[str, set[int]] = {}
    for name, array in arrays.items():
        collection, *path = name.split("/")
        if collection == "params" and path[-1:] == ["kernel"] and networks.top_module(path) in networks.heads():
            sizes.setdefault(networks.top_module(path), set()).add(array.shape[-1])
    found = sizes.get(head) or set().union(*sizes.values())
    return found.pop() if len(found) == 1 else None
