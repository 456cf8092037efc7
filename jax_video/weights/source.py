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

from jax_video import models, networks, run, saved
from jax_video import state as state_lib
from jax_video.data import documents, remote
from jax_video.errors import UserError
from jax_video.weights import files, names, provenance, public


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
    headless: bool = False  # whether no classifier was trained
    version: str = ""  # of the layout's code, and what says so: `provenance.version`
    signs: str = ""
    normalize: dict | None = None  # section `normalize` of the run that a file was exported from; None: not known
    several: bool = False  # whether that run was multi-label


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
    if isinstance(path, pathlib.Path) and not path.exists():
        raise UserError(f"{path}: there is no such weight file or run's folder")
    if isinstance(path, pathlib.Path) and not path.is_dir():
        if not layout:
            raise UserError(f"{path}: a weight file needs a layout: one of {', '.join(names.LAYOUTS)}")
        file = files.read_file(path)
        version, signs = provenance.version(layout, file)
        found = names.to_ours(layout, file.weights)
        return Source(
            name if known else str(path),
            layout,
            found.arrays,
            found.origin,
            found.problems,
            _num_classes(found.arrays),
            version=version,
            signs=signs,
            normalize=_normalize(path, file.notes),
            several=file.notes.get("loss") == "sigmoid",
        )
    if layout:
        raise UserError(f"{path} is a folder, so a run's; a layout ({layout}) is for weight files")
    trained = run.load(path, mesh=mesh)
    if expected and trained.config.model.name != expected:
        raise UserError(f"{path} is a run of {trained.config.model.name}, where one of {expected} is expected")
    arrays, transferred = state_lib.named_leaves(trained.weights), bool(trained.config.get("teacher"))
    if transferred:
        arrays = {name.replace("/student/", "/", 1): leaf for name, leaf in arrays.items() if "/student/" in name}
        head = networks.find(trained.config.model.name).head
        arrays = {name: leaf for name, leaf in arrays.items() if name.split("/")[1] != head}
    _print_differences(path, trained.meta.config, config, "teacher" if into == "teacher" else "model")
    # A conversion without names has numbered the classes.
    number = len(trained.classes)
    named = trained.meta.manifest or trained.classes != tuple(map(str, range(number)))
    return Source(str(path), "", arrays, None, [], number, trained.classes if named else None, transferred)


def _print_differences(path: str | pathlib.Path, theirs: dict, ours: ConfigDict, network: str) -> None:
    """Print where another run's network, or its normalisation of RGB, differs from a section and `normalize` here."""

    def told(config: dict | ConfigDict, section: str) -> dict:
        values = dict(config[section])
        if section != "normalize":  # what a config leaves out has its default
            values = models.defaults(values["name"]) | values
        return json.loads(json.dumps(values))

    changed = [
        f"{section}.{key}: there {there[key]}, here {value}"
        for section, there in ((network, told(theirs, "model")), ("normalize", told(theirs, "normalize")))
        for key, value in told(ours, section).items()
        if there.get(key, value) != value and key not in ("remat", "consensus")  # with which clips are seen the same
    ]
    if changed and jax.process_index() == 0:
        print(f"The run in {path} has another config: {'; '.join(changed)}.", file=sys.stderr)


def _normalize(path: pathlib.Path, notes: dict[str, str]) -> dict | None:
    """Section `normalize` of the run, perhaps of an earlier version, that a file was exported from; None: not known."""
    if "normalize" not in notes:
        return None
    try:
        section = saved.complete_section("normalize", documents.parse(notes["normalize"], {"*": [float]}))
        if any(len(values) != 3 for values in section.values()):
            raise documents.Damaged("not three numbers each")
    except documents.Damaged as error:
        raise UserError(f"{path} does not tell how RGB was normalised ({error}): export the weights again") from error
    return section


def _num_classes(arrays: dict[str, np.ndarray]) -> int | None:
    kernels = (arrays.get(f"params/{head}/kernel") for head in networks.heads())
    return next((kernel.shape[-1] for kernel in kernels if kernel is not None), None)
