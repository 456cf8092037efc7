"""Exports a run: as a program that needs no jax_video, as ONNX, and as a folder to share.

  python -m jax_video.export runs/stc --out=exported/stc --license=apache-2.0
  python exported/stc/classify.py video.mp4      # needs jax, flatbuffers and av (PyAV) alone
  python -m jax_video.predict video.mp4 --checkpoint=exported/stc
  python -m jax_video.export runs/stc --out=exported/onnx --format=onnx

--format is one, or several with commas, of

  stablehlo    model.stablehlo, for CPUs, NVIDIA's GPUs and TPUs and any number of clips: uint8 in, probabilities out;
               model.json, what it takes to use it; classify.py, which does
  safetensors  model.safetensors and config.json, which --checkpoint=, jax_video.load and init_from take like a run's
               folder; README.md, a model card: a folder that the Hugging Face Hub shows
  onnx         model.onnx, and model.json as above; needs jax2onnx (docs/how-to/export.md)

A run may also lie in a store or behind a URL: s3://, hf://USER/NAME, https://…
"""

import shlex

from absl import flags

from jax_video import command, objectives, run, sharding, state
from jax_video.data import samples
from jax_video.errors import UserError, writing
from jax_video.exporting import folder, program


def define_flags() -> None:
    flags.DEFINE_string("out", None, "The folder to write.")
    flags.DEFINE_list("format", list(folder.USUAL), f"One, or several with commas, of {', '.join(folder.FORMATS)}.")
    flags.DEFINE_enum("dtype", None, ("float32", "bfloat16"), "Type of activations; default: the run's.")
    flags.DEFINE_enum("crop", None, list(samples.TEST_CROPS), "What to look at of a frame; default: as the run's test.")
    flags.DEFINE_string("license", None, "Of the weights, for the model card, as the Hub calls it: apache-2.0, mit, …")


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if len(arguments) != 1:
        raise UserError(f"expected one run's folder, got {' '.join(arguments) or 'none'}; see --help")
    (source,) = arguments
    if given.out is None:
        raise UserError("--out is missing: the folder to write, for example --out=exported")
    folder.check(given.out, given.format)
    if given.license is not None and "safetensors" not in given.format:
        raise UserError("--license: of the model card, which --format=safetensors writes; leave it out, or add that")
    trained = run.load(source, dtype=given.dtype)
    sharding.announce(trained.mesh, state.describe(trained.config, trained.weights["params"]))
    with writing(given.out, "the same command begins anew"):
        files = folder.write(trained, given.out, given.format, license=given.license, crop=given.crop)
    for path in files:
        print(f"{path.stat().st_size:14,} bytes  {path}")
    out = shlex.quote(given.out)
    if "safetensors" in given.format:
        if isinstance(trained.objective, objectives.Classification):
            print(f"Try it on a video:\n  python -m jax_video.predict VIDEO --checkpoint={out}")
        else:
            print(f"It knows no classes, but features, in Python:\n  jax_video.load({given.out!r}).features(VIDEO)")
    if "stablehlo" in given.format and [*trained.sampling.streams] == ["rgb"]:
        print(f"Without jax_video:\n  python {out}/{program.READER} VIDEO")


if __name__ == "__main__":
    command.run(main, define_flags)
