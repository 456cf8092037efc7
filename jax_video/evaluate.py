"""Test protocols: clips in, video scores and metrics out.

A test is a stream of (video, clip) pairs in batches of one size; scores are summed per video on the host, in the order
of the pairs. So any number of clips per video, any batch size and any number of devices give the same result.
"""

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Iterator

import jax
import matplotlib.figure
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from jax_video import checkpoint as checkpoint_lib
from jax_video import lock, metrics, networks, objectives, recipe, saved, sharding
from jax_video.checkpoint import Checkpoints
from jax_video.data import pipeline, remote
from jax_video.data.manifest import SPLITS, Manifest
from jax_video.errors import UserError

EvalStep = Callable[[dict, dict, dict], dict[str, jax.Array]]


def make_eval_step(
    definition: nnx.GraphDef,
    mesh: Mesh,
    objective: objectives.Objective = objectives.Classification(),  # noqa: B008, frozen
) -> EvalStep:
    """The jitted test: (params, batch_stats, batch) -> {"scores" [B, K] float32, "failed" [B]} on every process."""

    def eval_step(params, batch_stats, batch):
        return {"scores": objective.test(definition, params, batch_stats, batch), "failed": batch["failed"]}

    return jax.jit(eval_step, out_shardings=sharding.replicated(mesh))


@dataclasses.dataclass
class Scores:
    """What a test gives: the mean scores of every video that could be read."""

    video: np.ndarray  # [N] index in the manifest, ascending
    label: np.ndarray  # [N], -1 where there is none
    scores: np.ndarray  # [N, K] float64, mean over the clips of a video
    clip_top1: float  # fraction of single clips whose best class is right
    failed: tuple[int, ...]  # manifest indices of videos that could not be read


def score_videos(
    eval_step: EvalStep,
    weights: tuple[dict, dict],
    manifest: Manifest,
    split: str,
    sampling: pipeline.Sampling,
    mesh: Mesh,
    *,
    protocol: pipeline.Protocol,
    batch: int,
    workers: int = 0,
    interrupted: Callable[[], bool] = lambda: False,
) -> Scores | None:
    """Scores every view of every readable video of a split; None when `interrupted` says so on the way."""
    views = pipeline.views(manifest, split, sampling, protocol)
    if not views:
        raise UserError(f"manifest {manifest.name!r} has no readable video in its split {split!r}.")
    # Scores do not depend on it, but for knowledge transfer, where a batch's videos make pairs with one another.
    batch = sharding.multiple_of_devices(min(batch, len(views)), mesh)
    hosts = pipeline.Hosts(jax.process_index(), jax.process_count())
    batches = pipeline.test_batches(manifest, sampling, views, batch=batch, workers=workers, hosts=hosts)
    sums = _Sums(manifest, views, batch)
    progress = tqdm(total=len(views), desc=f"{split}", unit="clip", leave=False, disable=None)
    pending = None  # scores of the batch before are read while this one runs
    with contextlib.closing(batches), contextlib.closing(progress):
        for rows in _until(interrupted, batches):
            if rows is None:
                return None
            running = eval_step(*weights, sharding.place_batch(rows, mesh))
            if pending is not None:
                progress.update(sums.add(pending))
            pending = running
        progress.update(sums.add(pending))
    return sums.means()


def _until(interrupted: Callable[[], bool], batches: Iterator[dict]) -> Iterator[dict | None]:
    """The batches; None and no more once interrupted, be it by a signal that has ended a worker on its way."""
    while not interrupted():
        try:
            rows = next(batches, None)
        except RuntimeError:
            if not interrupted():
                raise
            break
        if rows is None:
            return
        yield rows
    yield None


class _Sums:
    """Scores added up video by video, as the batches come: of a clip nothing is kept.

    Views are added in the order of `pipeline.test_rows`, which is the same for every batch size; so are the sums.
    """

    def __init__(self, manifest: Manifest, views: list[pipeline.View], batch: int):
        self._rows = [views[place].video if wanted else None for place, wanted in pipeline.test_rows(views, batch)]
        self._video = np.unique([view.video for view in views])
        labels = (manifest.videos[index].label for index in self._video)
        self._label = np.array([-1 if label is None else label for label in labels])
        self._place = {int(index): place for place, index in enumerate(self._video)}
        self._sums, self._clips, self._right = None, np.zeros(len(self._video), int), np.zeros(len(self._video), int)
        self._failed: set[int] = set()
        self._next = 0  # row

    def add(self, result: dict[str, jax.Array]) -> int:
        """Takes what a step gives of the next batch; returns how many views are in it."""
        scores = np.asarray(result["scores"])  # [B, K]
        self._failed.update(int(index) - 1 for index in np.asarray(result["failed"]) if index)
        if self._sums is None:
            self._sums = np.zeros((len(self._video), scores.shape[1]))
        rows = self._rows[self._next : self._next + len(scores)]
        self._next += len(scores)
        for video, row in zip(rows, scores, strict=True):
            if video is not None:
                place = self._place[video]
                self._sums[place] += row
                self._clips[place] += 1
                self._right[place] += row.argmax() == self._label[place]
        return sum(video is not None for video in rows)

    def means(self) -> Scores:
        """The means of all videos but those that failed."""
        kept = ~np.isin(self._video, list(self._failed))
        if not kept.any():
            raise UserError("none of the videos of this test can be read: has their folder moved since prepare?")
        return Scores(
            video=self._video[kept],
            label=self._label[kept],
            scores=self._sums[kept] / self._clips[kept, None],
            clip_top1=float(self._right[kept].sum() / self._clips[kept].sum()),
            failed=tuple(sorted(self._failed)),
        )


def check(config: ConfigDict, manifest: Manifest) -> None:
    """Raises UserError, before anything is trained, where the final test is bound to fail.

    That is: videos without a label, which knowledge transfer alone does without; test videos that are missing or
    broken, unless that is allowed; an unknown protocol; clips of another kind than the network takes. A set without
    test videos passes: it can be trained. Says where a teacher would have random weights.
    """
    transfers = isinstance(objectives.of(config), objectives.Correspondence)
    if not transfers:
        manifest.check_labels(*SPLITS)
        if len(manifest.classes) == 1 and jax.process_index() == 0:
            print(metrics.note(1), file=sys.stderr)
    if transfers and (config.train.micro_batch or config.train.batch) < 2:
        raise UserError(
            f"train.batch={config.train.batch} and train.micro_batch={config.train.micro_batch} leave single videos, "
            "which make no negative pair: knowledge transfer needs two or more at once."
        )
    if transfers and not config.init_from.path and jax.process_index() == 0:
        print("The teacher has random weights: give ImageNet's, weights=resnet50.pth of torchvision.", file=sys.stderr)
    listed = sum(video.split == "test" for video in manifest.videos)
    readable = len(manifest.select("test"))
    if readable < listed and not config.test.allow_partial:
        raise UserError(
            f"only {readable} of the {listed} videos of the split 'test' of {manifest.name!r} can be read; "
            "accuracy on a part is not comparable. Bring the others, or accept it: --config.test.allow_partial=True."
        )
    sampling, protocol = pipeline.Sampling(**config.clip), config.test
    if protocol.batch < 1:
        raise UserError(f"test.batch is {protocol.batch}: expected at least 1.")
    pipeline.views(manifest, "test", sampling, protocol_of(config))  # raises where unknown
    pipeline.check_stored(manifest, sampling)
    if bool(sampling.segments) != bool(config.model.get("consensus")) and not transfers:
        raise UserError(
            f"clip.segments is {sampling.segments} and model.consensus {config.model.get('consensus', False)}: several "
            "clips of a video are for a network with consensus, and it for them."
        )
    streams = networks.find(config.model.name).streams
    if tuple(sampling.streams) != streams:
        raise UserError(
            f"clip.streams is {tuple(sampling.streams)}, but {config.model.name} takes {streams}: give it that."
        )


def protocol_of(config: ConfigDict) -> pipeline.Protocol:
    """The protocol of a config's final test."""
    return pipeline.Protocol(config.test.clips, config.test.number, config.test.crop, config.test.flip)


@checkpoint_lib.writes_run
def test(config: ConfigDict, manifest: Manifest, workdir: remote.Path, mesh: Mesh) -> dict:
    """Tests a run's best checkpoint by the config's protocol, on the split "test".

    Writes test.json, predictions.jsonl, confusion.json and confusion.png.

    Returns:
      What test.json holds.

    Raises:
      UserError: no checkpoint, one of another network or other classes, or videos that cannot be read.
    """
    config = recipe.resolve(config)
    definition, network, meta = checkpoint_lib.read_network(workdir, mesh, dtype=config.dtype)
    checkpoint_lib.check_network(meta, config.to_dict(), manifest, workdir)
    _print_other_clips(meta["config"]["clip"], config.clip.to_dict(), workdir)
    protocol = config.test
    config = ConfigDict(config.to_dict() | {"normalize": meta["config"]["normalize"]})  # what the weights have seen
    objective = objectives.of(config)
    if isinstance(objective, objectives.Classification):
        manifest.check_labels("test")
    scores = score_videos(
        make_eval_step(definition, mesh, objective),
        (network["params"], network["batch_stats"]),
        manifest,
        "test",
        pipeline.Sampling(**config.clip),
        mesh,
        protocol=protocol_of(config),
        batch=protocol.batch,
        workers=config.data.workers,
    )
    lock.check(workdir)
    listed = sum(video.split == "test" for video in manifest.videos)
    result = _subject(config, manifest, meta["step"]) | {"videos": len(scores.video), "of": listed}
    if isinstance(objective, objectives.Correspondence):
        student = {"name": config.model.name, "frames": config.clip.frames}
        result |= objective.metrics(scores.scores, scores.label) | {"student": student}
    else:
        objectives.check_finite(scores.scores, [manifest.videos[index].path for index in scores.video])
        values = metrics.video_metrics(scores.scores, scores.label, len(manifest.classes))
        result |= {
            "top1": values["top1"],
            "top5": values["top5"],
            "mean_top1_top5": values["mean_top1_top5"],
            "mean_class_accuracy": values["mean_class_accuracy"],
            "clip_top1": scores.clip_top1,
            "class_accuracy": dict(zip(manifest.classes, values["class_accuracy"], strict=True)),
        }
        if note := metrics.note(len(manifest.classes)):
            result["note"] = note
        if jax.process_index() == 0:
            _write_classes(workdir, manifest, scores, values["confusion"])
    if jax.process_index() == 0:
        temporary = workdir / "test.json.tmp"  # last, and at once: its presence says that the test is complete
        temporary.write_text(json.dumps(result, ensure_ascii=False, allow_nan=False, indent=1), encoding="utf-8")
        temporary.replace(workdir / "test.json")
    if scores.failed and not protocol.allow_partial:
        names = ", ".join(manifest.videos[index].path for index in scores.failed[:5])
        raise UserError(
            f"{len(scores.failed)} videos could not be read in the test ({names} …): its result in "
            f"{workdir / 'test.json'} covers {result['videos']} of {listed}. Run prepare again, or accept it: "
            "--config.test.allow_partial=True."
        )
    return result


def _print_other_clips(theirs: dict, ours: dict, workdir: remote.Path) -> None:
    """Says so where a run tells of other clips than the config of its test."""
    changed = [f"{key} {theirs[key]}" for key in ("frames", "stride", "short_side", "size") if theirs[key] != ours[key]]
    if changed and jax.process_index() == 0:
        print(f"Other clips than those of the run in {workdir}, which has {', '.join(changed)}.", file=sys.stderr)


def read_result(config: ConfigDict, manifest: Manifest, workdir: remote.Path, mesh: Mesh) -> dict | None:
    """The result of an earlier test of the run's best checkpoint by the same protocol on all videos of the same set;
    None where there is none."""
    path = workdir / "test.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    with contextlib.closing(Checkpoints(workdir, mesh, read_only=True)) as checkpoints:
        expected = _subject(config, manifest, checkpoints.best_step())
    found = {key: result.get(key) for key in expected}
    whole = result["videos"] == result["of"] or config.test.allow_partial
    return result if whole and _in_full(found) == _in_full(expected) else None


def _subject(config: ConfigDict, manifest: Manifest, step: int) -> dict:
    """What a result is of, and how it was got; as JSON has it, where tuples are lists."""
    subject = {
        "step": step,
        "manifest": manifest.hash,
        "protocol": config.test.to_dict(),
        "clip": config.clip.to_dict(),
    }
    return json.loads(json.dumps(subject))


def _in_full(subject: dict) -> dict:
    """The same with what earlier versions, and recipes, leave out."""
    sections = {"protocol": "test", "clip": "clip"}
    subject |= {key: saved.complete_section(section, subject[key] or {}) for key, section in sections.items()}
    return json.loads(json.dumps(subject))


def report(result: dict, manifest: Manifest, workdir: remote.Path) -> str:
    """A result to be read, and how to use the network."""
    names = {
        "top1": "top-1",
        "top5": "top-5",
        "mean_top1_top5": "mean of top-1 and top-5",
        "mean_class_accuracy": "mean class accuracy",
        "clip_top1": "single clips, top-1",
        "pair_accuracy": "pairs told right",
        "positive_accuracy": "  of the same video",
        "negative_accuracy": "  of different videos",
    }
    lines = [
        f"{manifest.name}: {result['videos']} of {result['of']} test videos, checkpoint of step {result['step']}",
        *(f"  {names[key]:<24}{100 * result[key]:6.2f} %" for key in names if key in result),
    ]
    if "pair_accuracy" in result:
        name, frames = result["student"]["name"], result["student"]["frames"]
        recipes = "stc" if networks.find(name).recipe == "stc" else "t3d"  # whose start=RUN takes any other network
        start = shlex.quote(f"--config=configs/{recipes}.py:model={name},frames={frames},data=DIR,start={workdir}")
        return "\n".join([*lines, "Train its 3D network on labels:", f"  python -m jax_video.main {start}"])
    first = manifest.videos[manifest.select("test")[0][0]].path
    example = "VIDEO" if manifest.packed else shlex.quote(f"{manifest.root}/{first}")  # packed ones are no files
    return "\n".join(
        [
            *lines,
            *filter(None, [metrics.note(len(manifest.classes))]),
            f"Per class: {workdir}/test.json and confusion.png. Classify a video:",
            f"  python -m jax_video.predict {example} --checkpoint={shlex.quote(str(workdir))}",
        ]
    )


def _write_classes(workdir: remote.Path, manifest: Manifest, scores: Scores, confusion: list) -> None:
    with (workdir / "predictions.jsonl").open("wb") as file:
        for index, label, row in zip(scores.video, scores.label, scores.scores, strict=True):
            line = {"video": manifest.videos[index].path, "label": manifest.classes[label], "scores": row.tolist()}
            file.write(f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n".encode(errors="surrogateescape"))
    table = {"classes": list(manifest.classes), "rows": "true class", "columns": "predicted", "videos": confusion}
    (workdir / "confusion.json").write_text(json.dumps(table, ensure_ascii=False, indent=1), encoding="utf-8")
    _plot_confusion(workdir / "confusion.png", manifest.classes, np.array(confusion))


def _plot_confusion(path: remote.Path, classes: tuple[str, ...], confusion: np.ndarray) -> None:
    """Rows (true classes) sum to one; numbers of videos stand in the cells while they can be read."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.3 * len(classes) + 2, 4, 30))
    figure = matplotlib.figure.Figure((side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 100:
        ticks = range(len(classes))
        axes.set_xticks(ticks, classes, rotation=90, parse_math=False)
        axes.set_yticks(ticks, classes, parse_math=False)
    if len(classes) <= 30:
        for (row, column), videos in np.ndenumerate(confusion):
            if videos:
                shade = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, videos, ha="center", va="center", color=shade, fontsize=8)
    with path.open("wb") as file:
        figure.savefig(file, dpi=120)
