"""Trains a network and tests it.

  python -m jax_video.main --config=configs/stc.py
      a small STC-ResNet on the embedded data set, in a few minutes on two cores
  python -m jax_video.main --config=configs/stc.py:model=stc_resnet101,data=DIR --config.train.batch=64
      another network on the set that `python -m jax_video.prepare` wrote into DIR, with one value changed
  python -m jax_video.main --config=configs/stc.py --workdir=runs/first --mode=test    # tests the best checkpoint again
  python -m jax_video.main --config=configs/cost.py:data=DIR --workdir=runs/cost --mode=views
      what appearance and motion count in a run of CoST: views.json and two figures (CoST §4.5)
  python -m jax_video.main --config=configs/stc.py --workdir=runs/first --mode=features --config.data.manifest=DIR
      features of videos, which need no labels, by the network of a run: features.npz

Started again, a run goes on from its last checkpoint, or shows its result. Two at once in one folder are refused.
"""

import jax
from absl import flags
from ml_collections import ConfigDict

from jax_video import command, config_flag, evaluate, features, lock, sharding, state, views
from jax_video.checkpoint import hold, read_meta, run_folder
from jax_video.data import reader, remote
from jax_video.data.motions import read_manifest
from jax_video.errors import UserError
from jax_video.train import train

config_flag.define("What to train and how: RECIPE[:key=value,...], by name or as a file.")
PRINT_CONFIG = flags.DEFINE_boolean("print_config", False, "Print the config, and where its values come from; no more.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; by default runs/ and the config's name.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "test", "views", "features"], "Train and test; or only one.")
DISTRIBUTED = flags.DEFINE_string(
    "distributed", None, "Several processes: auto (TPU pod, SLURM) or HOST:PORT,ID,COUNT of the first, this one, all."
)
flags.declare_key_flag("takeover")


def main(arguments: list[str]) -> None:
    if arguments:
        raise UserError(f"unexpected arguments {' '.join(arguments)!r}: everything is a --flag=value; see --help.")
    config, name = command.read_config()
    if PRINT_CONFIG.value:
        return print(config_flag.describe())
    workdir = run_folder(WORKDIR.value or f"runs/{name}")
    sharding.start(DISTRIBUTED.value)
    with hold(workdir, takeover=command.TAKEOVER.value, lost=lock.end_process):
        run(config, workdir)


def run(config: ConfigDict, workdir: remote.Path) -> None:
    """What the mode asks for."""
    mesh = sharding.make_mesh()
    manifest = read_manifest(config.data.manifest).keep(config.data.fraction)
    reader.check(manifest)
    if MODE.value in ("train", "test"):
        evaluate.check(config, manifest)
    classes = read_meta(workdir, mesh)["classes"] if MODE.value == "features" else manifest.classes  # maybe others
    if jax.process_index() == 0:
        command.announce(sharding.describe(mesh), state.describe(config, len(classes)), manifest.describe())
    if MODE.value == "views":
        return show(views.report(views.analyse(config, manifest, workdir, mesh), workdir))
    if MODE.value == "features":
        return show(features.report(features.extract(config, manifest, workdir, mesh), manifest, workdir))
    new = train(config, manifest, workdir, mesh) if MODE.value == "train" else False
    if MODE.value == "train" and not manifest.select("test"):
        return print(f"Trained; {manifest.name!r} has no test videos. The checkpoints are in {workdir}.")
    result = None if new or MODE.value == "test" else evaluate.read_result(config, manifest, workdir, mesh)
    if result is not None:
        print(f"The run in {workdir} is finished.")
    else:
        result = evaluate.test(config, manifest, workdir, mesh)
    show(evaluate.report(result, manifest, workdir))


def show(report: str) -> None:
    if jax.process_index() == 0:
        print(report)


if __name__ == "__main__":
    command.run(main)
