r"""Converts weights: PyTorch's into a run's folder, and a run's into a file for PyTorch.

  # in: a folder that main (--mode=test), predict and init_from take like any run's
  python -m jax_video.convert r3d50.pth --layout=3d-resnets --out=runs/r3d50 \
      --config=configs/stc.py:model=resnet3d50,recipe=paper
  # the same, if it computes what PyTorch does: an input [B, 3, T, H, W] and the logits that it gave there
  python -m jax_video.convert r3d50.pth --layout=3d-resnets ... --check=outputs.npz --out=runs/r3d50
  # out: a state dict that load_state_dict(..., strict=True) takes
  python -m jax_video.convert runs/r3d50 --export=back.pth --layout=3d-resnets

--layout names whose weights they are, and sets the keywords of the network with which it computes what theirs does.
The names of the classes are those of the config's data set, or of --classes; else they are numbers.
"""

import contextlib
import pathlib
import shlex

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from ml_collections import ConfigDict, config_flags

from jax_video import checkpoint, command, lock, models, optimizer, sharding
from jax_video import state as state_lib
from jax_video.data import motions
from jax_video.errors import UserError
from jax_video.weights import files, merge, names

TOLERANCE = 1e-4  # of the logits, relative to the largest


def define_flags() -> None:
    """Only where this is the command that runs: its functions can be imported beside other commands'."""
    config_flags.DEFINE_config_file("config", None, "In: the network's config: FILE.py[:key=value,...].")
    flags.DEFINE_string("layout", None, f"Whose weights they are: {', '.join(names.LAYOUTS)}.")
    flags.DEFINE_string("out", None, "In: the folder to write.")
    flags.DEFINE_string("classes", None, "In: a file with the name of a class in each line, in order.")
    flags.DEFINE_string("check", None, "In: an .npz with `input` and `logits`; nothing is written if they differ.")
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
        report = convert(source, given.layout, config, given.out, classes=given.classes, check=given.check)
    print(f"{report}\nTry it on a video:\n  python -m jax_video.predict VIDEO --checkpoint={shlex.quote(given.out)}")


def convert(
    source: str | pathlib.Path,
    layout: str,
    config: ConfigDict,
    out: str | pathlib.Path,
    *,
    classes: str | pathlib.Path | None = None,
    check: str | pathlib.Path | None = None,
) -> str:
    """Writes the weights of a file as the first checkpoint of a run.

    The run's config is `config` with the keywords of the network and the normalisation of RGB that the layout sets.

    Args:
      classes: file of the classes' names; by default those of the config's data set, if it has as many.
      check: see `compare`.

    Returns:
      What was done, in some lines.

    Raises:
      UserError: the weights cannot be read, do not fit, or do not compute what `check` says; nothing is written then.
    """
    out = pathlib.Path(out)
    if any(step.name.isdigit() for step in (out / "checkpoints").glob("*")):  # not of a conversion that was stopped
        raise UserError(f"{out} already holds a run; choose another --out")
    wanted = names.keywords(layout, config.model.name) if config.model.name in models.MODELS else {}
    if wanted is None:
        fitting = [name for name in models.MODELS if names.keywords(layout, name) is not None]
        raise UserError(
            f"{config.model.name} is not a network of layout {layout}, which has {', '.join(fitting)}. To start "
            "another network from such weights, train it with --config.init_from.path, .layout, .inflate and .skip."
        )
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.update(wanted)
        usual = names.layout(layout).normalize
        if usual and state_lib.Normalization(**config.normalize) == state_lib.IMAGENET:  # not of the user's choice
            config.normalize.update(usual)
    mesh = sharding.make_mesh()
    weights = merge.read(source, layout, config, mesh)
    lines = [f"{source}, layout {layout}, is {config.model.name} of {weights.num_classes} classes:"]
    lines.append(weights.merged.table())
    if wanted:
        lines.append("  the layout sets " + ", ".join(f"{key}={value}" for key, value in wanted.items()))
    mean, deviation = (", ".join(map(str, config.normalize[key])) for key in ("mean", "deviation"))
    lines.append(f"  RGB is normalised by mean {mean} and deviation {deviation}")
    num_classes = weights.num_classes
    class_names, manifest, note = _classes(classes, config, num_classes)
    lines.append(f"  classes: {note}")
    meta = {
        "config": config.to_dict(),
        "classes": class_names,
        "manifest": manifest,
        "progress": None,  # of a run that has not begun
        "origin": weights.origin,
    }

    def create() -> state_lib.TrainState:
        schedule = optimizer.schedule(**config.schedule, steps=1, steps_per_epoch=1)
        tx = optimizer.sgd(schedule, **config.optimizer, frozen_norm=config.norm.frozen)
        return state_lib.create(state_lib.network(config, num_classes), tx, ema=config.train.ema > 0)

    state = merge.fill(weights, create)
    if check is not None:
        exact = config.copy_and_resolve_references()
        exact.dtype = "float32"
        definition, _, _ = state_lib.abstract(exact, num_classes)
        lines.append(f"  {compare(definition, state, check)}")
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
    _, network, meta = checkpoint.read_network(workdir, sharding.make_mesh())
    model = ConfigDict(meta["config"]["model"])
    if names.keywords(layout, model.name) is None:
        raise UserError(f"layout {layout} ({names.layout(layout).source}) has no {model.name}")
    merge.check_keywords(layout, model)
    arrays = {name: np.asarray(leaf) for name, leaf in state_lib.named_leaves(network).items()}
    files.write(path, names.to_theirs(layout, arrays, origin=meta.get("origin"), steps=meta["step"]))
    return meta["step"]


def compare(definition: nnx.GraphDef, state: state_lib.TrainState, path: str | pathlib.Path) -> str:
    """Runs the network on the input of an .npz and compares its logits with those there.

    The file has `input`, normalised, as PyTorch takes it ([B, C, T, H, W], or [B, C, H, W] of a 2D network) or as we do
    ([B, T, H, W, C]), and `logits` [B, K]; further axes, as I3D's of time, are averaged.

    Raises:
      UserError: the file is none of that, or the logits differ by more than `TOLERANCE` of the largest.
    """
    arrays = files.read(path)
    if missing := {"input", "logits"} - set(arrays):
        raise UserError(f"{path}: expected the arrays input and logits; {', '.join(sorted(missing))} is missing")
    video, expected = arrays["input"].astype(np.float32), arrays["logits"].astype(np.float64)
    if video.ndim == 4:
        video = video[:, :, None]
    if video.ndim == 5 and video.shape[-1] != 3:
        video = np.moveaxis(video, 1, -1)
    expected = expected.mean(axis=tuple(range(2, expected.ndim)))
    model = state_lib.join(definition, state.params, state.batch_stats, train=False)
    with jax.default_matmul_precision("highest"):  # float32 is less by default on TPUs and some GPUs
        logits = np.asarray(jax.jit(lambda video: model(video))(jnp.asarray(video)), np.float64)
    logits = logits.reshape(logits.shape[0], -1, logits.shape[-1]).mean(axis=1)  # a stream has them for every frame
    if logits.shape != expected.shape or not expected.size:
        raise UserError(f"{path}: has logits of shape {expected.shape}; ours, for its input, are of {logits.shape}")
    error = np.abs(logits - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    if not error <= TOLERANCE:
        raise UserError(
            f"{path}: the logits differ by {error:.1e} of the largest, more than {TOLERANCE:.0e}: this network "
            "computes something else with these weights. Was the input normalised, and the network in test mode "
            "(eval())? Weights of a scale that no training gives can differ so much by rounding alone."
        )
    return f"the largest difference from the logits in {path} is {error:.1e} of the largest logit"


def _classes(path: str | pathlib.Path | None, config: ConfigDict, number: int) -> tuple[list[str], str, str]:
    """Names of the classes, the hash of the manifest that they are of or "", and where they are from, in words."""
    if path is not None:
        try:
            lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: expected the name of a class in each line, as UTF-8 text; {error}") from error
        found = [line.strip() for line in lines if line.strip()]
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
