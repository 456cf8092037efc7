"""The mean of several tests: of a data set's official splits, or of one split with several seeds.

  python -m jax_video.average runs/split1 runs/split2 runs/split3
  python -m jax_video.average runs/seed0 runs/seed1 runs/seed2 --out=seeds.json

Each is the folder of a tested run, or what `python -m jax_video.fuse --out=FOLDER` wrote. ± is their sample standard
deviation (n - 1).
"""

import pathlib

from absl import flags

from jax_video import command
from jax_video.data import remote
from jax_video.errors import UserError, writing
from jax_video.testing import averages


def define_flags() -> None:
    flags.DEFINE_string("out", None, "A JSON file for the means and standard deviations.")


def main(arguments: list[str]) -> None:
    if len(arguments) < 2:
        raise UserError(f"expected at least two tested runs, got {' '.join(arguments) or 'none'}; see --help")
    if flags.FLAGS.out is not None:
        remote.check_local(flags.FLAGS.out)
        averages.check_out(pathlib.Path(flags.FLAGS.out))
    if len({remote.real(argument) for argument in arguments}) < len(arguments):
        raise UserError(f"a run is named twice: {' '.join(arguments)}")
    results = {argument: averages.read(remote.path(argument)) for argument in arguments}
    average = averages.summarise(results)
    width = 2 + max(len("mean"), *map(len, results))
    known = averages.names(results.values())
    print(" " * width + "".join(f"{name:>16}" for name in known.values()))
    for run, result in results.items():
        print(f"{run:<{width}}" + "".join(f"{f'{100 * result[key]:.2f} %':>16}" for key in known))
    for note in dict.fromkeys(result["note"] for result in results.values() if "note" in result):
        print(note)
    for run, result in results.items():
        if result.get("videos") != result.get("of", result.get("videos")):
            print(f"{run} covers {result['videos']} of {result['of']} {averages.video(result)}s only.")
    cells = (f"{100 * average[key]['mean']:.2f} ± {100 * average[key]['deviation']:.2f} %" for key in known)
    print(f"{'mean':<{width}}" + "".join(f"{cell:>16}" for cell in cells))
    print(
        {
            True: "All of the same set: the standard deviation is between trainings.",
            False: "Of different sets, or splits: the standard deviation is between them, too.",
            None: "Fused scores do not tell which videos they are of.",
        }[average["same_manifest"]]
    )
    if flags.FLAGS.out is not None:
        with writing(flags.FLAGS.out, "then give the same command"):
            averages.write(pathlib.Path(flags.FLAGS.out), average)


if __name__ == "__main__":
    command.run(main, define_flags)
