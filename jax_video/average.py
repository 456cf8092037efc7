"""The mean of several tests: of a data set's official splits, or of one split with several seeds.

  python -m jax_video.average runs/split1 runs/split2 runs/split3
  python -m jax_video.average runs/seed0 runs/seed1 runs/seed2 --out=seeds.json

Each is the folder of a tested run, or what `python -m jax_video.fuse --out=FOLDER` wrote. ± is the standard deviation
between them (of a sample: n - 1).
"""

import json
import pathlib
import statistics

from absl import flags

from jax_video import command, saved
from jax_video.errors import UserError

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_top1_top5": "mean of both",
    "mean_class_accuracy": "mean class",
}
COMPARED = {"protocol": "test", "clip": "clip"}  # of a test's result and of a config: runs must agree there, but for
FREE = ("batch", "allow_partial")  # on which scores do not depend


def define_flags() -> None:
    """Only where this is the command that runs: its functions can be imported beside other commands'."""
    flags.DEFINE_string("out", None, "A JSON file for the means and standard deviations.")


def main(arguments: list[str]) -> None:
    if len(arguments) < 2:
        raise UserError(f"expected at least two tested runs, got {' '.join(arguments) or 'none'}; see --help")
    results = {argument: read(pathlib.Path(argument)) for argument in arguments}
    if len(results) < len(arguments):
        raise UserError(f"a run is named twice: {' '.join(arguments)}")
    average = summarise(results)
    width = 2 + max(len("mean"), *map(len, results))
    print(" " * width + "".join(f"{name:>16}" for name in METRICS.values()))
    for run, result in results.items():
        print(f"{run:<{width}}" + "".join(f"{f'{100 * result[key]:.2f} %':>16}" for key in METRICS))
    for note in dict.fromkeys(result["note"] for result in results.values() if "note" in result):
        print(note)
    for run, result in results.items():
        if result.get("videos") != result.get("of", result.get("videos")):
            print(f"{run} covers {result['videos']} of {result['of']} test videos only.")
    cells = (f"{100 * average[key]['mean']:.2f} ± {100 * average[key]['deviation']:.2f} %" for key in METRICS)
    print(f"{'mean':<{width}}" + "".join(f"{cell:>16}" for cell in cells))
    print(
        {
            True: "All of the same set: the deviation is between trainings.",
            False: "Of different sets, or splits: the deviation is between them, too.",
            None: "Fused scores do not tell which videos they are of.",
        }[average["same_manifest"]]
    )
    if flags.FLAGS.out is not None:
        pathlib.Path(flags.FLAGS.out).write_text(json.dumps(average, ensure_ascii=False, indent=1), encoding="utf-8")


def read(run: pathlib.Path) -> dict:
    """A test's result.

    Raises:
      UserError: the run was not tested, or its test.json holds something else.
    """
    path = run / "test.json"
    if not path.is_file():
        raise UserError(f"{run} has no test.json: test it first, python -m jax_video.main --workdir={run} --mode=test")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        for key in METRICS:
            float(result[key])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the result of a test of classes ({type(error).__name__}: {error})") from error
    return result


def summarise(results: dict[str, dict]) -> dict:
    """Mean and deviation of every metric over the runs.

    Returns:
      {"runs": names, "same_manifest": whether all were tested on the same set (None where one does not tell), "top1":
      {"mean", "deviation"}, …}, fractions.

    Raises:
      UserError: two runs were tested by different protocols or with different clips.
    """
    told = [(run, result) for run, result in results.items() if "protocol" in result]  # fused scores do not tell
    for run, result in told[1:]:
        first, expected = told[0]
        if changed := [
            line
            for key, section in COMPARED.items()
            for line in _differences(key, *(_complete(section, each[key]) for each in (expected, result)))
        ]:
            raise UserError(
                f"{first} and {run} were not tested alike:\n  "
                + "\n  ".join(changed)
                + "\nTest one of them again as the other."
            )
    manifests = {result.get("manifest") for result in results.values()}
    values = {key: [result[key] for result in results.values()] for key in METRICS}
    return {
        "runs": list(results),
        "same_manifest": None if None in manifests else len(manifests) == 1,
        **{key: {"mean": statistics.mean(row), "deviation": statistics.stdev(row)} for key, row in values.items()},
    }


def _complete(section: str, values: dict) -> dict:
    """As JSON has it, where tuples are lists."""
    return json.loads(json.dumps(saved.complete_section(section, values)))


def _differences(section: str, one: dict, other: dict) -> list[str]:
    return [
        f"{section}.{key}: {one.get(key)} and {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if key not in FREE and one.get(key) != other.get(key)
    ]


if __name__ == "__main__":
    define_flags()
    command.run(main)
