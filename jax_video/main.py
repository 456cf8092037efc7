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

import jax
from absl import flags
from ml_collections import config_flags

from jax_video import command, evaluate, sharding
from jax_video.data.motions import read_manifest
from jax_video.errors import UserError
from jax_video.train import train

config_flags.DEFINE_config_file("config", None, "What to train and how: FILE.py[:key=value,...].")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; by default runs/ and the config's name.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "test"], "Train and then test, or only test.")
DISTRIBUTED = flags.DEFINE_string(
    "distributed", None, "Several processes: auto (TPU pod, SLURM) or HOST:PORT,ID,COUNT of the first, this one, all."
)


def main(arguments: list[str]) -> None:
    if arguments:
        raise UserError(f"unexpected arguments {' '.join(arguments)!r}: everything is a --flag=value; see --help.")
    config, name = command.read_config()
    workdir = pathlib.Path(WORKDIR.value or f"runs/{name}")
    sharding.start(DISTRIBUTED.value)
    mesh = sharding.make_mesh()
    manifest = read_manifest(config.data.manifest)
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


if __name__ == "__main__":
    command.run(main)
