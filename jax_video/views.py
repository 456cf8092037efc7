"""How much each view counts in a trained CoST network (CoST §4.5): what `--mode=views` of `jax_video.main` does.

α, the share that H-W, T-W and T-H have in every channel of a CoST layer, is averaged over the channels, then over the
videos, then over the layers. H-W is what appearance counts, T-W and T-H together what motion counts.
"""

import json

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import checkpoint, evaluate, lock, networks, objectives, recipe, sharding
from jax_video import state as state_lib
from jax_video.data import pipeline, remote
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError
from jax_video.models.cost import C2D, CoSTBottleneck
from jax_video.models.resnet2d import STAGES

VIEWS = ("H-W", "T-W", "T-H")
COLORS = ("tab:gray", "tab:orange", "tab:blue")
EXTREMES = 20  # classes with the most motion, and with the least, where a figure cannot show all


@checkpoint.writes_run
def analyse(config: ConfigDict, manifest: Manifest, workdir: remote.Path, mesh: Mesh) -> dict:
    """Measures a run's best checkpoint on the validation videos, or on the test videos where there are none.

    Writes views.json, views_layers.png (Fig. 8) and views_classes.png (Fig. 7).

    Returns:
      What views.json holds: step, split and what `measure` returns.

    Raises:
      UserError: no checkpoint, one of another network or other classes, or a network without views.
    """
    config = recipe.resolve(config)
    definition, network, meta = checkpoint.read_network(workdir, mesh, dtype=config.dtype)
    checkpoint.check_network(meta, config.to_dict(), manifest, workdir)
    split = "val" if manifest.select("val") else "test"
    result = {"step": meta["step"], "split": split} | measure(
        definition,
        network,
        manifest,
        split,
        pipeline.Sampling(**{**config.clip, "segments": 0}),
        mesh,
        normalization=state_lib.Normalization(**meta["config"]["normalize"]),
        batch=config.test.batch,
        workers=config.data.workers,
    )
    lock.check(workdir)
    if jax.process_index() == 0:
        (workdir / "views.json").write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
        plot_layers(workdir / "views_layers.png", result["layers"])
        plot_classes(workdir / "views_classes.png", result["classes"])
    return result


def measure(
    definition: nnx.GraphDef,
    network: dict,
    manifest: Manifest,
    split: str,
    sampling: pipeline.Sampling,
    mesh: Mesh,
    *,
    normalization: state_lib.Normalization = state_lib.IMAGENET,
    batch: int = 8,
    workers: int = 0,
) -> dict:
    """The mean α of every view, from one clip in the middle of each video of a split.

    Args:
      network: {"params", "batch_stats"}.

    Returns:
      "overall": {"H-W", "T-W", "T-H"}, which sum to 1; "layers": the same by the names of the CoST layers; "classes":
      the same by the true classes, most motion first; "videos" that were read, "of" those listed.

    Raises:
      UserError: the network is none of CoST, or the split has no video that can be read.
    """
    model = _cost(state_lib.join(definition, **network, train=False))
    layers = [
        f"{stage}/{index}"
        for stage in STAGES
        for index, unit in enumerate(getattr(model, stage))
        if isinstance(unit, CoSTBottleneck)
    ]

    def step(params, batch_stats, batch):
        model = _cost(state_lib.join(definition, params, batch_stats, train=False))
        coefficients = model.coefficients(state_lib.normalize(batch["rgb"], normalization))
        alpha = jnp.concatenate([coefficients[layer].mean(axis=2) for layer in layers], axis=1)  # [B, layers · 3]
        return {"scores": alpha.astype(jnp.float32), "failed": batch["failed"]}

    found = evaluate.score_videos(
        jax.jit(step, out_shardings=sharding.replicated(mesh)),
        (network["params"], network["batch_stats"]),
        manifest,
        split,
        sampling,
        mesh,
        protocol=pipeline.Protocol(clips="uniform", number=1, crop="center"),
        batch=batch,
        workers=workers,
    )
    objectives.check_finite(found.scores, [manifest.videos[index].path for index in found.video])
    alpha = found.scores.reshape(len(found.video), len(layers), 3)
    classes = {
        manifest.classes[label]: alpha[found.label == label].mean(axis=(0, 1))
        for label in np.unique(found.label[found.label >= 0])
    }
    by_motion = sorted(classes, key=lambda name: -classes[name][1:].sum())
    return {
        "videos": len(found.video),
        "of": sum(video.split == split for video in manifest.videos),
        "overall": _named(alpha.mean(axis=(0, 1))),
        "layers": {layer: _named(alpha[:, index].mean(axis=0)) for index, layer in enumerate(layers)},
        "classes": {name: _named(classes[name]) for name in by_motion},
    }


def _cost(model: nnx.Module) -> C2D:
    """The network itself, or the one that a consensus of several clips has."""
    model = getattr(model, "network", model)
    if getattr(model, "kind", None) not in ("cost_a", "cost_b"):
        known = [name for name, network in networks.NETWORKS.items() if network.weighs_views]
        raise UserError(
            f"only the networks of CoST weigh views ({', '.join(known)}); this one is a {type(model).__name__}."
        )
    return model


def _named(alpha: np.ndarray) -> dict[str, float]:
    return dict(zip(VIEWS, alpha.tolist(), strict=True))


def report(result: dict, workdir: remote.Path) -> str:
    """The result as a table."""
    rows = {"overall": result["overall"]} | result["layers"]
    width = 2 + max(map(len, rows))
    names = list(result["classes"])
    # α that are learnt, as in CoST(a), not predicted from the clip, are every class's.
    differ = names and result["classes"][names[-1]]["H-W"] - result["classes"][names[0]]["H-W"] > 1e-6
    return "\n".join(
        [
            f"Mean coefficients of {result['videos']} of {result['of']} videos of the split {result['split']!r}, "
            f"checkpoint of step {result['step']}:",
            " " * width + "".join(f"{view:>7}" for view in VIEWS),
            *(f"{name:<{width}}" + "".join(f"{row[view]:7.3f}" for view in VIEWS) for name, row in rows.items()),
            *([f"Motion counts most for {names[0]!r} and least for {names[-1]!r}."] if differ else []),
            f"Layers and classes: {workdir}/views.json, views_layers.png and views_classes.png.",
        ]
    )


def plot_layers(path: remote.Path, layers: dict[str, dict[str, float]]) -> None:
    """Every layer's three views, from the bottom of the network to its top (CoST Fig. 8)."""
    figure = matplotlib.figure.Figure((max(5, 0.5 * len(layers) + 2), 4), layout="constrained")
    axes = figure.subplots()
    bottom = np.zeros(len(layers))
    for view, color in zip(VIEWS, COLORS, strict=True):
        share = np.array([row[view] for row in layers.values()])
        bars = axes.bar(list(layers), share, bottom=bottom, color=color, label=view)
        axes.bar_label(bars, fmt="%.2f", label_type="center", fontsize=8)
        bottom += share
    axes.set(xlabel="CoST layer", ylabel="mean coefficient", ylim=(0, 1))
    axes.tick_params(axis="x", rotation=45)
    figure.legend(loc="outside upper center", ncols=3)
    with remote.path(path).open("wb") as file:
        figure.savefig(file, dpi=120)


def plot_classes(path: remote.Path, classes: dict[str, dict[str, float]]) -> None:
    """Classes by what motion counts for them (CoST Fig. 7); of many only those with the most and with the least."""
    names = list(classes)
    parts = {"": names}
    if len(names) > 2 * EXTREMES:
        parts = {"motion counts most": names[:EXTREMES], "motion counts least": names[-EXTREMES:]}
    height = 1.5 + 0.25 * max(map(len, parts.values()))
    figure = matplotlib.figure.Figure((6 * len(parts), height), layout="constrained")
    panels = figure.subplots(1, len(parts), sharex=True, squeeze=False)[0]
    for axes, (title, shown) in zip(panels, parts.items(), strict=True):
        left = np.zeros(len(shown))
        for view, color in zip(VIEWS[1:], COLORS[1:], strict=True):
            share = np.array([classes[name][view] for name in shown])
            axes.barh(range(len(shown)), share, left=left, color=color, label=view)
            left += share
        axes.set(xlabel="mean coefficient", title=title)
        axes.set_yticks(range(len(shown)), shown, parse_math=False)
        axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    with remote.path(path).open("wb") as file:
        figure.savefig(file, dpi=120)
