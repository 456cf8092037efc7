"""How much each view counts in a trained CoST network (CoST §4.5): what `--mode=views` of `jax_video.main` does.

α, the share that H-W, T-W and T-H have in every channel of a CoST layer, is averaged over the channels, then over the
videos, then over the layers. H-W is the share of appearance, T-W and T-H together that of motion.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_video import checkpoint, lock, networks, pictures, scoring, sharding
from jax_video import state as state_lib
from jax_video.data import documents, pipeline, remote
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError
from jax_video.models.cost import C2D, VIEWS, CoSTBottleneck, by_view
from jax_video.networks import STAGES
from jax_video.run import Run
from jax_video.testing import results

PROTOCOL = pipeline.Protocol(clips="uniform", number=1, crop="center")  # one clip in the middle of each video


@checkpoint.writes_run
def analyse(run: Run, manifest: Manifest) -> dict[str, Any]:
    """Measure a run on the validation videos, or on the test videos where there are none.

    Writes views.json, views_layers.png (Fig. 8) and views_classes.png (Fig. 7), of a checkpoint that was chosen by its
    step into a folder of its own (`results.place`).

    Returns:
      What views.json holds: step, split and what `measure` returns, and of which set, with which clips and dtype.

    Raises:
      UserError: the run has other classes, or a network without views.
    """
    run.check_classes(manifest)
    split = "val" if manifest.select("val") else "test"
    results.print_other_clips(run)
    about = results.subject(run, manifest) | {"protocol": dataclasses.asdict(PROTOCOL)}
    result: dict[str, Any] = {"step": run.step, "split": split, **measure(run, manifest, split), **about}
    lock.check(run.folder)
    if jax.process_index() == 0:
        folder = results.folder_of(run, "test")
        folder.mkdir(exist_ok=True)
        documents.write(folder / "views.json", result, indent=1, seal=False)
        pictures.plot_layers(folder / "views_layers.png", result["layers"])
        pictures.plot_classes(folder / "views_classes.png", result["classes"])
    return result


def measure(run: Run, manifest: Manifest, split: str) -> dict[str, Any]:
    """The mean α of every view, from one clip in the middle of each video of a split.

    Returns:
      "overall": {"H-W", "T-W", "T-H"}, which sum to 1; "layers": the same by the names of the CoST layers; "classes":
      the same by the true classes, most motion first; "videos" that were read, "of" those listed.

    Raises:
      UserError: the network is not a CoST network, or the split has no video that can be read.
    """
    model = _cost(run.network)
    layers = [
        f"{stage}/{index}"
        for stage in STAGES
        for index, unit in enumerate(getattr(model, stage))
        if isinstance(unit, CoSTBottleneck)
    ]

    def weigh(params, batch_stats, batch):
        model = _cost(state_lib.join(run.definition, params, batch_stats, train=False))
        coefficients = model.coefficients(state_lib.normalize(batch["rgb"], run.normalization))
        alpha = jnp.concatenate([coefficients[layer].mean(axis=2) for layer in layers], axis=1)  # [B, layers · 3]
        return {"values": alpha.astype(jnp.float32), "failed": batch["failed"]}

    step: scoring.ClipStep = jax.jit(weigh, out_shardings=sharding.replicated(run.mesh))
    single = dataclasses.replace(run.sampling, segments=0)
    means = run.mean_over_clips(step, manifest, split, sampling=single, protocol=PROTOCOL)
    means.check_finite(manifest)
    alpha = means.values.reshape(len(means.video), len(layers), 3)
    known = np.arange(len(manifest.classes))
    holds = means.label > 0 if manifest.multilabel else means.label[:, None] == known  # [N, K]
    classes = {manifest.classes[label]: alpha[holds[:, label]].mean(axis=(0, 1)) for label in known[holds.any(axis=0)]}
    by_motion = sorted(classes, key=lambda name: -classes[name][1:].sum())
    return {
        "videos": len(means.video),
        "of": sum(video.split == split for video in manifest.videos),
        "overall": by_view(alpha.mean(axis=(0, 1))),
        "layers": {layer: by_view(alpha[:, index].mean(axis=0)) for index, layer in enumerate(layers)},
        "classes": {name: by_view(classes[name]) for name in by_motion},
    }


def _cost(model: nnx.Module) -> C2D:
    """The CoST network: `model`, or the one inside its `SegmentConsensus`. Raises UserError where it is none."""
    model = getattr(model, "network", model)
    if not isinstance(model, C2D) or not any(isinstance(unit, CoSTBottleneck) for _, unit in nnx.iter_modules(model)):
        known = [name for name, network in networks.NETWORKS.items() if network.weighs_views]
        raise UserError(
            f"only the networks of CoST weigh views ({', '.join(known)}); this one is a {type(model).__name__}."
        )
    return model


def report(result: dict[str, Any], folder: remote.Path) -> str:
    """The result as a table, and in which folder it is."""
    rows = {"overall": result["overall"]} | result["layers"]
    width = 2 + max(map(len, rows))
    names = list(result["classes"])
    # In CoST(a), α are learnt, not predicted from the clip: they are the same for every class.
    differ = names and result["classes"][names[-1]]["H-W"] - result["classes"][names[0]]["H-W"] > 1e-6
    return "\n".join(
        [
            f"Mean coefficients of {result['videos']} of {result['of']} videos of the split {result['split']!r}, "
            f"checkpoint of step {result['step']}:",
            " " * width + "".join(f"{view:>7}" for view in VIEWS),
            *(f"{name:<{width}}" + "".join(f"{row[view]:7.3f}" for view in VIEWS) for name, row in rows.items()),
            *([f"Motion counts most for {names[0]!r} and least for {names[-1]!r}."] if differ else []),
            f"Layers and classes: {folder}/views.json, views_layers.png and views_classes.png.",
        ]
    )
