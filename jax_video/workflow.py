"""Train, then test: what a recipe is for."""

from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import run as run_lib
from jax_video.data import remote
from jax_video.data.manifest import Manifest
from jax_video.testing import results
from jax_video.train import train


def train_and_test(
    config: ConfigDict, manifest: Manifest, workdir: remote.Path, mesh: Mesh | None = None
) -> tuple[dict[str, Any] | None, bool]:
    """Trains to the end, going on where the run has stopped, and tests its best checkpoint.

    Returns:
      (what test.json holds, whether there was anything left to do). There is no result of a set without test videos; a
      test that was made before is not repeated.

    Raises:
      What `train.train` and `results.test` raise.
    """
    new = train(config, manifest, workdir, mesh)
    if not manifest.select("test"):
        return None, new
    run = run_lib.load(workdir, config=config, mesh=mesh)
    result = None if new else results.read_result(run, manifest)
    return (results.test(run, manifest), True) if result is None else (result, False)
