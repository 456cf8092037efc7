"""Weights in and out: PyTorch's into the folder of a run, and a run's into a file for PyTorch."""

import contextlib
import json
import pathlib
from collections.abc import Collection

import numpy as np
from ml_collections import ConfigDict

from jax_video import checkpoint, lock, networks, optimizer, published, recipe, sharding
from jax_video import state as state_lib
from jax_video.data import remote
from jax_video.data.sources import class_files, motions, prepared
from jax_video.errors import UserError
from jax_video.meta import Meta
from jax_video.run import Run
from jax_video.weights import files, names, proof, settings, start
from jax_video.weights.source import read_source


def convert(
    source: str | pathlib.Path,
    layout: str,
    config: ConfigDict,
    out: str | pathlib.Path,
    *,
    normalize: str = "",
    classes: str | pathlib.Path | None = None,
    check: str | pathlib.Path | None = None,
    given: Collection[str] = (),
) -> str:
    """Write the weights of a file as the first checkpoint of a run.

    The run's config is `config` with the keywords of the network, the normalisation of RGB, the clips and the test that
    follow from the layout and the file. It is multi-label if the data set that the user has named is and has as many
    classes, or if the weights are known to be: of a file that was exported from a multi-label run, or public ones.

    Args:
      normalize: the version of the layout's code, where it has several and the file does not tell.
      classes: file of the classes' names; by default those of the data set, if the user has named it ("data" or
        "data.manifest" in `given`), and it has as many. That the weights have them in the same order is assumed, and
        said.
      check: see `proof.compare`.
      given: keys and sections of the config that the user has set ("clip.frames", "clip"). In clip, test and normalize
        they stay; a keyword of the network that contradicts the weights is an error if it is named here or differs from
        the network's default.

    Returns:
      A report of what was done, in some lines.

    Raises:
      UserError: the weights cannot be read, do not fit, leave open what RGB they expect, contradict what was given, or
        do not compute what `check` says; nothing is written then.
    """
    remote.check_local(out)
    out = pathlib.Path(out)
    if any(step.name.isdigit() for step in (out / "checkpoints").glob("*")):  # a conversion that was stopped has none
        raise UserError(f"{out} already holds a run; choose another --out")
    if published.is_published(out) or not recipe.is_free(out):
        raise UserError(f"{out} already holds a config.json that is no run's; choose another --out")
    wanted = names.keywords(layout, config.model.name) if config.model.name in networks.NETWORKS else {}
    if wanted is None:
        fitting = [name for name in networks.NETWORKS if names.keywords(layout, name) is not None]
        raise UserError(
            f"{config.model.name} is not a network of layout {layout}, which has {', '.join(fitting)}. To start "
            "another network from such weights, train it with --config.init_from.path, .layout, .inflate and .skip."
        )
    config = recipe.resolve(config, flip=True)  # the set is not known yet
    mesh = sharding.make_mesh()
    found = read_source(source, "", layout, config, mesh)
    with config.unlocked():
        told = settings.set_keywords(config, found, given)
        weights = start.fit([found], config)
        num_classes = weights.num_classes
        told += settings.set_normalization(config, found, normalize, given)
        told += settings.set_sampling(config, found, num_classes, given)
    sharding.announce(mesh, state_lib.describe(config, state_lib.abstract(config, num_classes)[1]))
    lines = [f"{source}, layout {layout}, is {config.model.name} of {num_classes} classes:", weights.merged.table()]
    lines += [f"  {line}" for line in told]
    class_names, manifest, note, several = _classes(classes, config, num_classes, given)
    lines.append(f"  classes: {note}")
    if config.train.get("loss") is None and (several or found.several):
        with config.unlocked():
            config.train.loss = "sigmoid"
        lines.append("  several may hold of a video, each from a probability of 0.5 on, as no thresholds are known")
    meta = Meta(config.to_dict(), tuple(class_names), manifest, origin=found.origin)

    def create() -> state_lib.TrainState:
        schedule = optimizer.schedule(**config.schedule, steps=1, steps_per_epoch=1)
        network = state_lib.network(config, num_classes)
        _, _, batch_stats = state_lib.split(network)
        return state_lib.create(network, optimizer.of(config, schedule, batch_stats), ema=config.train.ema > 0)

    if not num_classes:
        raise UserError(f"{source}: its classifier has no classes")
    state = start.fill(weights, create)
    if check is not None:
        lines += [f"  {line}" for line in proof.compare(config, num_classes, state, check)]
    with lock.hold(out), contextlib.closing(checkpoint.Checkpoints(out, mesh)) as checkpoints:
        recipe.write(out, config)
        checkpoints.save(sharding.place_state(state, mesh), meta)
    return "\n".join([*lines, f"Wrote {out}."])


def export(run: Run, layout: str, path: str | pathlib.Path) -> list[str]:
    """Write the weights of a run as a new file that a layout's own code loads.

    Returns:
      Lines on what that code has to know.

    Raises:
      UserError: there is no such layout, the network is not one of its, or the file is there or cannot be written.
    """
    check_export(layout, path)
    model = run.config.model
    if names.keywords(layout, model.name) is None:
        raise UserError(f"layout {layout} ({names.layout(layout).source}) has no {model.name}")
    start.check_keywords(layout, model)
    arrays = {name: np.asarray(leaf) for name, leaf in state_lib.named_leaves(run.weights).items()}
    # Without them, readers would take the layout's normalisation, clips and test, and the defaults of our network.
    notes = {
        **{section: json.dumps(run.meta.config[section]) for section in ("normalize", "clip", "test")},
        "model": json.dumps({**networks.find(model.name).keywords, **model.to_dict()}),
    }
    if run.thresholds is not None:
        notes["loss"] = "sigmoid"  # else readers would expect one label for each video
    files.write(path, names.to_theirs(layout, arrays, origin=run.meta.origin, steps=run.step), notes)
    return settings.compare_normalization(layout, run.meta.config["normalize"])


def check_export(layout: str, path: str | pathlib.Path) -> None:
    """Raise UserError where there is no such layout, no such kind of file, or the file is there already."""
    names.layout(layout)
    files.check_suffix(path)
    if pathlib.Path(path).exists():
        raise UserError(f"{path} is there already: choose another --export, or remove it first")


def _classes(
    path: str | pathlib.Path | None, config: ConfigDict, number: int, given: Collection[str] = ()
) -> tuple[list[str], str, str, bool]:
    """The names of the classes, the hash of their manifest or "", where they are from, in words; and whether videos of
    the data set that the user has named have several labels, if it has as many classes."""
    name = config.data.manifest
    named = settings.is_given("data.manifest", given)  # else it is the recipe's: it says nothing of somebody's weights
    other = ""  # why the set does not name them
    if name == recipe.EMBEDDED:
        there = number == len(motions.CLASSES)
    elif remote.is_remote(name):
        there = path is None  # else its names are not needed
    elif not (there := pathlib.Path(name).exists()) and named:
        other = f", as there is no {name} here"
    manifest = prepared.read(name) if named and there else None
    if manifest is not None and len(manifest.classes) != number:
        other = f", as {manifest.name} has {len(manifest.classes)} classes and the network {number}"
        manifest = None
    several = manifest is not None and manifest.multilabel
    if path is not None:
        found = list(class_files.read(pathlib.Path(path)).names)
        if len(found) != number:
            raise UserError(f"{path}: names {len(found)} classes, the network has {number}")
        return found, "", f"those of {path}", several
    if manifest is not None:
        said = f"{', '.join(manifest.classes[:3])}, … of {manifest.name}, which has as many"
        said += "; that the weights have them in this order is assumed, --classes=FILE says otherwise"
        return list(manifest.classes), manifest.hash, said, several
    said = f"0 to {number - 1}{other}; --classes=FILE gives them names"
    return [str(index) for index in range(number)], "", said, several
