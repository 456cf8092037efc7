"""Trains a network and tests it.

  python -m jax_video.main --config=configs/stc.py
      a small STC-ResNet on the embedded data set, in a few minutes on two cores
  python -m jax_video.main --config=configs/stc.py:model=stc_resnet101,data=DIR --config.train.batch=64
      another network on the set that `python -m jax_video.prepare` wrote into DIR, with one value changed
  python -m jax_video.main --config=configs/stc.py --workdir=runs/first --mode=test    # tests the best checkpoint again
  python -m jax_video.main --config=configs/stc.py --mode=test --config.test.split=val --step=200   # one checkpoint
  python -m jax_video.main --config=configs/stc.py --config.train.epochs=20 --extend    # goes on with a finished run
      trains on, up to 20 epochs in all, with the schedule begun anew: give it --config.schedule.learning_rate
  python -m jax_video.main --config=configs/cost.py:data=DIR --workdir=runs/cost --mode=views
      how much appearance and motion count in a run of CoST: views.json and two figures (CoST §4.5)
  python -m jax_video.main --config=configs/stc.py --workdir=runs/first --mode=features --config.data.manifest=DIR
      features of videos by a run's network: features.npz; the videos need no labels

Started again, a run goes on from its last checkpoint, or shows its result. Two at once in one folder are refused.
"""

import jax
from absl import flags

from jax_video import command, config_flag, lock, sharding, workflow
from jax_video.checkpoint import hold, run_folder
from jax_video.errors import UserError, writing


def define_flags() -> None:
    config_flag.define("What to train and how: RECIPE[:key=value,...], by name or as a file.")
    flags.DEFINE_boolean("print_config", False, "Print the config, and where its values come from; no more.")
    flags.DEFINE_string("workdir", None, "The run's folder; by default runs/ and the config's name.")
    flags.DEFINE_enum("mode", "train", workflow.MODES, "Train and then test; or only test, or one of the others.")
    flags.DEFINE_string(
        "distributed",
        None,
        "Several processes: auto (TPU pod, SLURM) or HOST:PORT,ID,COUNT of the first, this one, all.",
    )
    flags.DEFINE_boolean("extend", False, "Train a finished run for longer: more train.epochs, by a schedule anew.")
    flags.DEFINE_integer("step", None, "The checkpoint to use with --mode; by default the best.", lower_bound=0)
    flags.DEFINE_integer("profile", 0, "Steps of training to trace for xprof and TensorBoard.", lower_bound=0)
    command.define_takeover()


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if arguments:
        raise UserError(f"unexpected arguments {' '.join(arguments)!r}: everything is a --flag=value; see --help.")
    config, name = config_flag.read()
    if given.print_config:
        return print(config_flag.describe())
    if given.mode == "train":
        config_flag.note_kept_recipe()
    workdir = run_folder(given.workdir or f"runs/{name}")
    sharding.start(given.distributed)
    with writing(workdir), hold(workdir, takeover=given.takeover, lost=lock.end_process):
        report = workflow.perform(
            given.mode, config, workdir, profile=given.profile, extend=given.extend, step=given.step
        )
    if jax.process_index() == 0:
        print(report)


if __name__ == "__main__":
    command.run(main, define_flags)
