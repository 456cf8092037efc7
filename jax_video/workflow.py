"""What `python -m jax_video.main` does in each mode: above all train and then test, which is what a recipe is for."""

import os
import shlex
import sys
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import recipe, sharding, state, task
from jax_video import run as run_lib
from jax_video.data import reader, remote
from jax_video.data.manifest import Manifest
from jax_video.data.sources import prepared
from jax_video.errors import UserError
from jax_video.reporting.writing import write_report
from jax_video.testing import coefficients, features, results
from jax_video.train import train

MODES = ("train", "test", "views", "features")


def perform(
    mode: str,
    config: ConfigDict,
    workdir: remote.Path,
    *,
    profile: int = 0,
    extend: bool = False,
    step: int | None = None,
) -> str:
    """Do what a mode of the command asks for with the set that a config names; return a report.

    Args:
      profile: steps of training to trace.
      extend: whether to train a finished run for longer (`train.train`).
      step: of the checkpoint to use; None: the best one.

    Raises:
      UserError: flags, config, set or run do not fit together.
    """
    for flag, given, does in (("--profile", profile, "traces steps of"), ("--extend", extend, "is more")):
        if given and mode != "train":
            raise UserError(f"{flag} {does} training, and --mode={mode} takes none. Leave one of them out.")
    if step is not None and mode == "train":
        raise UserError("--step is the checkpoint that --mode=test, views or features looks at: give one of those.")
    splits = {"views": "the validation videos, or else those of the test", "features": "all videos"}
    if mode in splits and (split := config.test.get("split", "test")) != "test":
        raise UserError(f"--config.test.split={split}: --mode={mode} looks at {splits[mode]}. Leave it out.")
    mesh = sharding.make_mesh()
    manifest = prepared.read(config.data.manifest)
    if mode != "train":  # what trains keeps the fraction itself
        manifest = manifest.keep(config.data.fraction)
    reader.check(manifest)
    # Whether what is not trained here may be mirrored is for its run to say, too.
    config = recipe.resolve(config, multilabel=manifest.multilabel)

    if mode == "train":
        result, new = train_and_test(config, manifest, workdir, mesh, profile=profile, extend=extend)
        if result is None:
            none = f"{manifest.name!r} has no {config.test.split} videos"
            return f"Trained; {none}. The checkpoints are in {workdir}."
        report = results.report(result, manifest, workdir, results.place(workdir, config.test.split), config.model.name)
        return report if new else f"The run in {workdir} is finished.\n{report}"
    if mode == "test":
        task.check(config, manifest)
    run = run_lib.load(workdir, config=config, mesh=mesh, step=step)
    sharding.announce(mesh, state.describe(config, run.weights["params"]), manifest.describe())
    if mode == "views":
        return coefficients.report(coefficients.analyse(run, manifest), results.folder_of(run, "test"))
    if mode == "features":
        return features.report(features.extract(run, manifest), manifest, results.folder_of(run, "test"))
    return results.report(test(run, manifest), manifest, workdir, results.folder_of(run), config.model.name)


def train_and_test(
    config: ConfigDict,
    manifest: Manifest,
    workdir: str | os.PathLike,
    mesh: Mesh | None = None,
    *,
    profile: int = 0,
    extend: bool = False,
) -> tuple[dict[str, Any] | None, bool]:
    """Train to the end, going on where the run has stopped, and test its best checkpoint. Arguments: `train.train`.

    Of the manifest's training videos the config's `data.fraction` is used.

    Returns:
      (content of test.json, whether there was anything left to do). The content is None for a set without test videos;
      a test that was made before is not repeated.

    Raises:
      What `train.train` and `results.test` raise.
    """
    config = recipe.resolve(config, flip=manifest.flip, multilabel=manifest.multilabel)
    manifest = manifest.keep(config.data.fraction)
    new = train(config, manifest, workdir, mesh, profile=profile, extend=extend)
    if not manifest.select(config.test.split):
        return None, new
    run = run_lib.load(workdir, config=config, mesh=mesh)
    result = None if new else results.read_result(run, manifest)
    return (test(run, manifest), True) if result is None else (result, False)


def test(run: run_lib.Run, manifest: Manifest) -> dict[str, Any]:
    """Test a run (`testing.results.test`), and write report.html if the result is in the run's own folder.

    Of a set of which the run was trained on a part (`data.fraction`), the whole may be given. If the report fails, the
    test is done all the same, and stderr says how to make the report.
    """
    manifest = run.meta.kept(manifest)
    result = results.test(run, manifest)
    if jax.process_index() == 0 and results.folder_of(run) == run.folder:
        alone = jax.process_count() == 1  # or else the others would have to take part in an explanation
        try:
            write_report(run, data=manifest, explain=alone)
        except Exception as error:
            again = f"python -m jax_video.report {shlex.quote(str(run.folder))}"
            print(f"The report failed ({type(error).__name__}: {error}); {again} makes it.", file=sys.stderr)
    return result
