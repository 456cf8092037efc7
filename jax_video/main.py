"""Trains a network and tests it.

  python -m jax_video.main --config=configs/stc.py
      a small STC-ResNet on the embedded data set, in a few minutes on two cores
  python -m jax_video.main --config=configs/stc.py:model=stc_resnet101,data=DIR --config.train.batch=64
      another network on the set that `python -m jax_video.prepare` wrote into DIR, with one value changed
  python -m jax_video.main --config=configs/stc.py --workdir=runs/first --mode=test
      tests the best checkpoint of a run again

Started again, a run goes on from its last checkpoint; a finished one only shows its result.
"""

import pathlib
import re

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from jax_video import command, evaluate, sharding
from jax_video.data import motions
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError
from jax_video.train import train

CONFIG = config_flags.DEFINE_config_file("config", None, "What to train and how: FILE.py[:key=value,...].")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; by default runs/ and the config's name.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "test"], "Train and then test, or only test.")
DISTRIBUTED = flags.DEFINE_string(
    "distributed", None, "Several processes: auto (TPU pod, SLURM) or HOST:PORT,ID,COUNT of the first, this one, all."
)


def main(arguments: list[str]) -> None:
    config, workdir = read_config(arguments)
    sharding.start(DISTRIBUTED.value)
    mesh = sharding.make_mesh()
    manifest = motions.make() if config.data.manifest == "motions" else pathlib.Path(config.data.manifest)
    manifest = Manifest.read(manifest / "manifest.jsonl" if manifest.is_dir() else manifest)
    evaluate.check(config, manifest)

    new = train(config, manifest, workdir, mesh) if MODE.value == "train" else False
    if MODE.value == "train" and not manifest.select("test"):
        print(f"Trained; {manifest.name!r} has no test videos. The checkpoints are in {workdir}.")
        return
    result = None if new or MODE.value == "test" else evaluate.read_result(config, manifest, workdir, mesh)
    if result is not None:
        print(f"The run in {workdir} is finished.")
    else:
        result = evaluate.test(config, manifest, workdir, mesh)
    if jax.process_index() == 0:
        print(evaluate.report(result, manifest, workdir))


def read_config(arguments: list[str]) -> tuple[ConfigDict, pathlib.Path]:
    """The config, and the run's folder."""
    if arguments:
        raise UserError(f"unexpected arguments {' '.join(arguments)!r}: everything is a --flag=value; see --help.")
    if CONFIG.value is None:
        raise UserError("--config is missing: for example --config=configs/stc.py")
    file, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    if not isinstance(CONFIG.value, ConfigDict):
        raise UserError(f"--config: there is no file {file!r}: for example --config=configs/stc.py")
    name = "-".join(filter(None, [pathlib.Path(file).stem, re.sub(r"[^\w=.,]+", "_", argument).strip("_")]))
    return CONFIG.value, pathlib.Path(WORKDIR.value or f"runs/{name}")


if __name__ == "__main__":
    command.run(main)
