r"""Converts weights: PyTorch's into a run's folder, and a run's into a file for PyTorch.

  # in: a folder that main (--mode=test), predict and init_from take like any run's
  python -m jax_video.convert r3d50.pth --layout=3d-resnets --out=runs/r3d50 \
      --config=configs/stc.py:model=resnet3d50,recipe=paper
  # the same, if it computes what PyTorch does: raw RGB [B, 3, T, H, W] as `video`, the normalised `input` that it gave,
  # or one of both, and the `logits` that it gave there
  python -m jax_video.convert r3d50.pth --layout=3d-resnets ... --check=outputs.npz --out=runs/r3d50
  # public weights by their name (python -m jax_video.models --weights), which also tells the layout
  python -m jax_video.convert torchvision:r2plus1d_18 --out=runs/r2plus1d --config=t3d:model=r2plus1d_18
  # out: a state dict that load_state_dict(..., strict=True) takes
  python -m jax_video.convert runs/r3d50 --export=back.pth --layout=3d-resnets

--layout names whose weights they are. The layout and the file tell the keywords with which the network computes what
theirs does, the normalisation of RGB, and the clips and crops of their own test. A flag, such as
--config.clip.frames=64, comes before them. The names of the classes are those of --classes, or of the data set that you
name (data=SET, or --config.data.manifest), if it has as many: that the weights have them in its order is assumed.
Without either they are numbers.
"""

import shlex

from absl import flags

from jax_video import command, config_flag, lock, run, sharding, state
from jax_video.data import remote
from jax_video.errors import UserError, writing
from jax_video.weights import conversion, names
from jax_video.weights.source import layout_of

_IN = ("config", "out", "normalize", "classes", "check")


def define_flags() -> None:
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
    command.define_takeover()
    flags.DEFINE_string("export", None, "Out: the new file to write: .pth, .pt, .safetensors or .npz.")


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if len(arguments) != 1:
        raise UserError(f"expected one weight file or run's folder, got {' '.join(arguments) or 'none'}; see --help")
    (source,) = arguments
    if given.export is not None:
        if given.layout is None:
            raise UserError(f"--layout is missing: one of {', '.join(names.LAYOUTS)}")
        if wrong := [f"--{name}" for name in _IN if given[name].present]:
            raise UserError(f"{' '.join(wrong)}: of weights that come in; --export writes a run's: leave it out")
        remote.check_local(given.export)
        conversion.check_export(given.layout, given.export)
        trained = run.load(source)
        sharding.announce(trained.mesh, state.describe(trained.config, trained.weights["params"]))
        told = conversion.export(trained, given.layout, given.export)
        print(f"Wrote {given.export}: the weights of {source} after {trained.step} steps, in layout {given.layout}.")
        for line in told:
            print(line)
        return
    layout = layout_of(source, given.layout or "")
    if not layout or given.out is None:
        raise UserError("expected --layout=NAME, whose weights they are, and --out=DIR, where to write; see --help")
    config, _ = config_flag.read()
    again = "the same command begins anew"
    with writing(given.out, again), lock.hold(given.out, takeover=given.takeover, lost=lock.end_process):
        report = conversion.convert(
            source,
            layout,
            config,
            given.out,
            normalize=given.normalize or "",
            classes=given.classes,
            check=given.check,
            given=config_flag.chosen(),
        )
    print(f"{report}\nTry it on a video:\n  python -m jax_video.predict VIDEO --checkpoint={shlex.quote(given.out)}")


if __name__ == "__main__":
    command.run(main, define_flags)
