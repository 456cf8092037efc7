"""A trained network with all that it takes to use it: what it was trained for, and the steps that look at clips."""

import functools
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import meta as meta_lib
from jax_video import multilabel, objectives, scoring, sharding
from jax_video import state as state_lib
from jax_video import videos as videos_lib
from jax_video.data import documents, pipeline, remote
from jax_video.data.manifest import Manifest
from jax_video.errors import Stopped, UserError
from jax_video.meta import Meta
from jax_video.models.correspondence import Correspondence
from jax_video.models.t3d import SegmentConsensus
from jax_video.state import Normalization
from jax_video.task import Task


class Trained:
    """A trained network, with what its checkpoint says of it.

    What it computes is kept, and so are the programs: none follows a config that is changed afterwards.

    Attributes:
      config: all sections; this object looks at videos with its clips, its test and its normalisation of RGB. To look
        with others, give a changed config to `load`; a run whose own was changed refuses to compute.
      meta: what its checkpoint says of it.
      step: after how many steps of training its weights were saved.
      chosen: whether that step was asked for, and is not just the best one.
    """

    def __init__(
        self,
        folder: remote.Path,
        config: ConfigDict,
        meta: Meta,
        step: int,
        definition: nnx.GraphDef,
        weights: Mapping[str, Any],
        mesh: Mesh,
        *,
        chosen: bool = False,
    ):
        self._folder, self._absolute = folder, remote.absolute(folder)
        self.config, self._loaded, self._task = config, config.to_dict(), Task.of(config)
        self._definition, self._weights, self._mesh = definition, weights, mesh
        self.meta, self.step, self.chosen = meta, step, chosen

    def __repr__(self) -> str:
        return f"<Run {self.folder}: {self.config.model.name}, {len(self.classes)} classes, step {self.step}>"

    @property
    def folder(self) -> remote.Path:
        """Where it is: as it was named, as long as that leads there."""
        return self._folder if remote.absolute(self._folder) == self._absolute else self._absolute

    @property
    def task(self) -> Task:
        """What its config asks of videos. Raises UserError if that was changed after the run was loaded."""
        if self.config.to_dict() != self._loaded:
            raise UserError(
                f"run.config has been changed since {self._folder} was loaded: nothing here would follow it. Open the "
                "run with it: jax_video.load(FOLDER, config=run.config)"
            )
        return self._task

    @property
    def definition(self) -> nnx.GraphDef:
        """The network, without its arrays (`state.split`)."""
        return self._definition

    @property
    def weights(self) -> Mapping[str, Any]:
        """The arrays of the network, {"params", "batch_stats"}."""
        return jax.tree.map(lambda leaf: leaf, self._weights)  # a change of it does not reach the run

    @property
    def mesh(self) -> Mesh:
        """The devices that it runs on."""
        return self._mesh

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes [K], in the order of the scores; a knowledge transfer, without scores, has its set's."""
        return self.meta.classes

    @functools.cached_property
    def network(self) -> nnx.Module:
        """The network in test mode, as `models.build` describes it: maps normalised video to logits [B, K].

        For a knowledge transfer it is `models.correspondence.Correspondence`, whose 3D network is its `student`.
        """
        return state_lib.join(self.definition, **self.weights, train=False)

    @property
    def _arrays(self) -> tuple[dict, dict]:
        """(params, batch_stats), as steps take them."""
        return self._weights["params"], self._weights["batch_stats"]

    @property
    def sampling(self) -> pipeline.Sampling:
        """How clips are cut out of a video."""
        return self.task.sampling

    @property
    def protocol(self) -> pipeline.Protocol:
        """How a test looks at a video."""
        return self.task.protocol

    def protocol_with(self, clips: int | None) -> pipeline.Protocol:
        """The test's protocol, but with `clips` clips of a video, evenly spread; None: with its own number. Raises
        UserError for `clips` below 1, and for a network that takes the clips of a video together."""
        return self.protocol if clips is None else videos_lib.with_clips(self.protocol, clips)

    @property
    def objective(self) -> objectives.Objective:
        """What it was trained for."""
        return self.task.objective

    @property
    def normalization(self) -> Normalization:
        """The normalisation of RGB that its weights were trained with."""
        return Normalization.of(self.meta.config["normalize"])

    @functools.cached_property
    def fingerprint(self) -> int:
        """A checksum of all that the scores of a clip depend on: weights, network, classes and how RGB is normalised.

        It is the same however the config is written: with a keyword at its default or without, with `remat` or not.
        """
        network = meta_lib.network_of(self.config.model) | {"remat": False}
        record = [list(self.classes), network, list(self.normalization)]
        found = documents.checksum(record)
        for leaf in state_lib.named_leaves(self.weights).values():
            found = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, found)
        return found

    @functools.cached_property
    def thresholds(self) -> np.ndarray | None:
        """Where videos may have several labels: the probability of each class [K] from which on it is taken to hold.

        They have the best F1 on the validation videos, or are .5 if there were none. None for single labels.
        """
        if not isinstance(self.objective, multilabel.MultiLabel):
            return None
        return np.array(self.meta.thresholds or [multilabel.THRESHOLD] * len(self.classes))

    def check_classes(self, manifest: Manifest) -> None:
        """Raise CheckpointError unless a set has the run's classes, in the same order."""
        meta_lib.check_classes(self.meta, manifest, self.folder)

    @functools.cached_property
    def score_clips(self) -> scoring.ClipStep:
        """The jitted step whose values are the objective's scores of clips: of the classes [B, K]."""
        return scoring.make_eval_step(self.definition, self.mesh, self.objective)

    @functools.cached_property
    def pool_clips(self) -> scoring.ClipStep:
        """The jitted step whose values are features of clips, [B, D]: means over their frames and places.

        With two streams, those of appearance come first; for a knowledge transfer they are the 3D network's.
        """
        normalization, segments = self.normalization, self.sampling.segments

        def pool(params, batch_stats, batch):
            model: Any = state_lib.join(self.definition, params, batch_stats, train=False)
            if isinstance(model, Correspondence):
                model = SegmentConsensus(model.student) if segments else model.student
            features: Any = model.features(*state_lib.inputs(batch, normalization))
            streams = features if isinstance(features, tuple) else (features,)
            pooled = [stream.mean(axis=(1, 2, 3), dtype=jnp.float32) for stream in streams]
            return {"values": jnp.concatenate(pooled, axis=-1), "failed": batch["failed"]}

        return jax.jit(pool, out_shardings=sharding.replicated(self.mesh))

    def mean_over_clips(
        self, step: scoring.ClipStep, manifest: Manifest, split: str, **changes: Any
    ) -> scoring.VideoMeans:
        """Run `scoring.mean_over_clips` on every readable video of a split, with the run's clips and test; `changes`
        are arguments of it that replace these.

        Raises:
          Stopped: SIGTERM has reached one of several processes.
          UserError: no video can be read, or another process has other videos.
        """
        sharding.check_same_set(manifest.hash)
        given = {
            "sampling": self.sampling,
            "protocol": self.protocol,
            "batch": self.config.test.batch,
            "workers": self.config.data.workers,
            "mesh": self.mesh,
        }
        try:
            return scoring.mean_over_clips(step, self._arrays, manifest, split, **given | changes)
        except scoring.Interrupted:
            raise Stopped("stopped by SIGTERM, on the way; the same command begins this anew.") from None
