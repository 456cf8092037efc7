r"""Converts weights: PyTorch's into a run's folder, and a run's into a file for PyTorch.

  # in: a folder that main (--mode=test), predict and init_from take like any run's
  python -m jax_video.convert r3d50.pth --layout=3d-resnets --out=runs/r3d50 \
      --config=configs/stc.py:model=resnet3d50,recipe=paper
  # the same, if it computes what PyTorch does: raw RGB [B, 3, T, H, W] as `video`, the normalised `input` that it gave,
  # or one of both, and the `logits` that it gave there
  python -m jax_video.convert r3d50.pth --layout=3d-resnets ... --check=outputs.npz --out=runs/r3d50
  # out: a state dict that load_state_dict(..., strict=True) takes
  python -m jax_video.convert runs/r3d50 --export=back.pth --layout=3d-resnets

--layout names whose weights they are. From it and from the file follow the keywords with which the network computes
what theirs does, the normalisation of RGB, and the clips and crops of their own test; what a flag sets, as in
--config.clip.frames=64, stays. The names of the classes are those of the config's data set, or of --classes; else they
are numbers.
"""

import contextlib
import json
import pathlib
import shlex
from collections.abc import Collection

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jax_video import checkpoint, command, config_flag, lock, networks, optimizer, sharding
from jax_video import state as state_lib
from jax_video.data import motions, sources
from jax_video.errors import UserError
from jax_video.weights import files, merge, names, proof, settings


def define_flags() -> None:
    """Only where this is the command that runs: its functions can be imported beside other commands'."""
    config_flag.define("In: the network's config: RECIPE[:key=value,...], by name or as a file.")
    flags.DEFINE_string("layout", None, f"Whose weights they are: {', '.join(names.LAYOUTS)}.")
    flags.DEFINE_string("out", None, "In: the folder to write.")
    flags.DEFINE_string(
        "normalize", None, "In: the version of the layout's code, 2018 or 2020, if the file has lost it."
    )
    flags.DEFINE_string("classes", None, "In: a file of class names, as prepare takes: one a line, or with indices.")
    flags.DEFINE_string(
        "check", None, "In: an .npz with `video`, `input` or both, and `logits`; nothing is written if they differ."
    )
    flags.declare_key_flag("takeover")
    flags.DEFINE_string("export", None, "Out: the file to write: .pth, .pt, .safetensors or .npz.")


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if len(arguments) != 1:
        raise UserError(f"expected one weight file or run's folder, got {' '.join(arguments) or 'none'}; see --help")
    (source,) = arguments
    if given.export is not None:
        if given.layout is None:
            raise UserError(f"--layout is missing: one of {', '.join(names.LAYOUTS)}")
        steps = export(source, given.layout, given.export)
        print(f"Wrote {given.export}: the weights of {source} after {steps} steps, in layout {given.layout}.")
        return
    if given.layout is None or given.out is None:
        raise UserError("expected --layout=NAME, whose weights they are, and --out=DIR, where to write; see --help")
    config, _ = command.read_config()
    with lock.hold(given.out, takeover=command.TAKEOVER.value, lost=lock.end_process):
        report = convert(
            source,
            given.layout,
            config,
            given.out,
            normalize=given.normalize or "",
            classes=given.classes,
            check=given.check,
            given=config_flag.chosen(config),
        )
    print(f"{report}\nTry it on a video:\n  python -m jax_video.predict VIDEO --checkpoint={shlex.quote(given.out)}")


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
    """Writes the weights of a file as the first checkpoint of a run.

    The run's config is `config` with the keywords of the network, the normalisation of RGB, the clips and the test that
    follow from the layout and the file.

    Args:
      normalize: the version of the layout's code, where it has several and the file does not tell.
      classes: file of the classes' names; by default those of the config's data set, if it has as many.
      check: see `proof.compare`.
      given: what of the config the user has chosen, by key ("clip.frames", "clip"): sections clip, test and normalize
        keep it, and a keyword of the network that contradicts the weights is an error. So are, without being named
        here, keywords that are not the network's defaults.

    Returns:
      What was done, in some lines.

    Raises:
      UserError: the weights cannot be read, do not fit, leave open what RGB they expect, contradict what was given, or
        do not compute what `check` says; nothing is written then.
    """
    out = pathlib.Path(out)
    if any(step.name.isdigit() for step in (out / "checkpoints").glob("*")):  # not of a conversion that was stopped
        raise UserError(f"{out} already holds a run; choose another --out")
    wanted = names.keywords(layout, config.model.name) if config.model.name in networks.NETWORKS else {}
    if wanted is None:
        fitting = [name for name in networks.NETWORKS if names.keywords(layout, name) is not None]
        raise UserError(
            f"{config.model.name} is not a network of layout {layout}, which has {', '.join(fitting)}. To start "
            "another network from such weights, train it with --config.init_from.path, .layout, .inflate and .skip."
        )
    config = config.copy_and_resolve_references()
    mesh = sharding.make_mesh()
    found = merge.read_source(source, "", layout, config, mesh)
    with config.unlocked():
        told = settings.set_keywords(config, found, given)
        weights = merge.fit([found], config)
        num_classes = weights.num_classes
        told += settings.set_normalization(config, found, normalize, given)
        told += settings.set_sampling(config, found, num_classes, given)
    command.announce(sharding.describe(mesh), state_lib.describe(config, num_classes))
    lines = [f"{source}, layout {layout}, is {config.model.name} of {num_classes} classes:", weights.merged.table()]
    lines += [f"  {line}" for line in told]
    class_names, manifest, note = _classes(classes, config, num_classes)
    lines.append(f"  classes: {note}")
    meta = {
        "config": config.to_dict(),
        "classes": class_names,
        "manifest": manifest,
        "progress": None,  # of a run that has not begun
        "origin": found.origin,
    }

    def create() -> state_lib.TrainState:
        schedule = optimizer.schedule(**config.schedule, steps=1, steps_per_epoch=1)
        tx = optimizer.sgd(schedule, **config.optimizer, frozen_norm=config.norm.frozen)
        return state_lib.create(state_lib.network(config, num_classes), tx, ema=config.train.ema > 0)

    state = merge.fill(weights, create)
    if check is not None:
        lines += [f"  {line}" for line in proof.compare(config, num_classes, state, check)]
    with lock.hold(out), contextlib.closing(checkpoint.Checkpoints(out, mesh)) as checkpoints:
        checkpoints.save(sharding.place_state(state, mesh), meta)
    return "\n".join([*lines, f"Wrote {out}."])


def export(workdir: str | pathlib.Path, layout: str, path: str | pathlib.Path) -> int:
    """Writes the weights of a run's best checkpoint as a file that a layout's own code loads.

    Returns:
      The steps that they were trained for.

    Raises:
      UserError: there is no such run, its network is not one of the layout's, or the file cannot be written.
    """
    names.layout(layout)
    files.check_suffix(path)
    mesh = sharding.make_mesh()
    _, network, meta = checkpoint.read_network(workdir, mesh)
    command.announce(sharding.describe(mesh), state_lib.describe(ConfigDict(meta["config"]), len(meta["classes"])))
    model = ConfigDict(meta["config"]["model"])
    if names.keywords(layout, model.name) is None:
        raise UserError(f"layout {layout} ({names.layout(layout).source}) has no {model.name}")
    merge.check_keywords(layout, model)
    arrays = {name: np.asarray(leaf) for name, leaf in state_lib.named_leaves(network).items()}
    notes = {"normalize": json.dumps(meta["config"]["normalize"])}  # without which it would count as its layout's
    files.write(path, names.to_theirs(layout, arrays, origin=meta.get("origin"), steps=meta["step"]), notes)
    return meta["step"]


def _classes(path: str | pathlib.Path | None, config: ConfigDict, number: int) -> tuple[list[str], str, str]:
    """Names of the classes, the hash of the manifest that they are of or "", and where they are from, in words."""
    if path is not None:
        found = list(sources.read_classes(pathlib.Path(path)))
        if len(found) != number:
            raise UserError(f"{path}: names {len(found)} classes, the network has {number}")
        return found, "", f"those of {path}"
    embedded = config.data.manifest == "motions"
    if number == len(motions.CLASSES) if embedded else pathlib.Path(config.data.manifest).exists():
        manifest = motions.read_manifest(config.data.manifest)
        if len(manifest.classes) == number:
            return list(manifest.classes), manifest.hash, f"{', '.join(manifest.classes[:3])}, … of {manifest.name}"
    return [str(index) for index in range(number)], "", f"0 to {number - 1}; --classes=FILE gives them names"


if __name__ == "__main__":
    define_flags()
    command.run(main)
