"""The surest mistakes of a test, as filmstrips, with what the network looked at where it can tell."""

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from jax_video import run as run_lib
from jax_video import saved
from jax_video.data import reader
from jax_video.data.manifest import Video
from jax_video.errors import UserError, VideoError
from jax_video.explanation import Explainer
from jax_video.reporting import page
from jax_video.reporting.page import percent
from jax_video.reporting.record import Record
from jax_video.run import Run
from jax_video.testing import fusion, heatmaps

SECONDS = 90  # after which no explanation is begun; later mistakes are shown without
_COLUMNS = 8  # frames of a filmstrip
_WIDEST = 1120  # pixels of a filmstrip
_LEGEND = (
    "A filmstrip is one clip of the test as the network saw it, or the clips that it saw together, and below it the "
    "same with what speaks for its answer (Grad-CAM), most where it is red; of two streams first appearance, then "
    "motion. The share in the picture is of that alone."
)
_WHERE = f"Where the videos have moved, {page.code('--data=DIR')} says where the set that was tested is now."


class Mistake(NamedTuple):
    """A video of the test that got a wrong answer."""

    video: str
    label: str
    answer: str
    sure: float  # the answer's probability
    own: float  # that of the video's class

    def caption(self, word: str) -> str:
        """What is wrong, as HTML; `word` says what a probability is."""
        return (
            f"<b>{page.name(self.label)}</b>, taken for <b>{page.name(self.answer)}</b>: {percent(self.sure)} {word}; "
            f"its own class {percent(self.own)}"
        )


def probabilities(record: Record) -> np.ndarray:
    """The scores of a test as probabilities [N, K]; fused scores as shares of their sum.

    In a multi-label test each class is by itself, and fused scores stay as they are.
    """
    assert record.predictions is not None
    scores = np.stack(list(record.predictions.scores.values()))
    protocol = (record.result or {}).get("protocol") or {}
    logits = protocol.get("average_clips", protocol.get("average")) == "logit"
    if record.multilabel:
        return 1 / (1 + np.exp(-scores)) if logits else scores
    if logits or scores.min() < 0:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    total = scores.sum(axis=1, keepdims=True)
    return scores / np.where(total > 0, total, 1)


def answers(predictions: fusion.Predictions) -> dict[str, int]:
    """{video: the number of its best class}."""
    return {video: int(row.argmax()) for video, row in predictions.scores.items()}


def surest(record: Record) -> list[Mistake]:
    """All mistakes, those of which the network was surest first."""
    assert record.predictions is not None
    classes, found = record.predictions.class_names, []
    best, labels = answers(record.predictions), record.predictions.targets.tolist()
    for video, row, label in zip(record.predictions.scores, probabilities(record), labels, strict=True):
        answer = best[video]
        if answer != label:
            found.append(Mistake(video, classes[label], classes[answer], float(row[answer]), float(row[label])))
    return sorted(found, key=lambda mistake: (-mistake.sure, mistake.video))


class Shown(Protocol):
    """What can be shown as a figure."""

    @property
    def video(self) -> str:
        """The name of the video in its set."""

    @property
    def label(self) -> str:
        """What the video shows: its class or classes, in words."""

    @property
    def answer(self) -> str:
        """The class that is explained."""

    def caption(self, word: str) -> str:
        """What is wrong, as HTML; `word` says what a probability is."""


def figures(record: Record, wrong: Sequence[Shown], run: Run | None, *, explain: bool) -> tuple[str, list[str]]:
    """The mistakes as figures in HTML, and notes about those that have no picture or no explanation.

    Args:
      run: the run, where it is open already.
      explain: whether to show what the network looked at.
    """
    source = _Source(record, run, explain)
    word = "share of the scores" if record.fused else "sure"
    found = []
    for mistake in tqdm(wrong, desc="report", unit="video", leave=False, disable=None):
        alt = f"Frames of {page.plain(mistake.video)}, {page.plain(mistake.label)}"
        shown = source.strip(mistake)
        found.append(
            '<figure class="mistake">'
            + (page.picture(shown, alt, kind="strip") if shown is not None else "")
            + f'<figcaption>{mistake.caption(word)} <span class="file">{page.name(mistake.video)}</span>'
            "</figcaption></figure>"
        )
    legend = page.paragraph(_LEGEND, "small") if source.explained else ""
    notes = source.notes
    if source.gone:
        what = (
            "A picture is missing" if len(source.gone) == 1 else f"{len(source.gone)} pictures are missing, the first"
        )
        notes = [*notes, f"{what}: {page.text(source.gone[0], 300)}. {_WHERE}"]
    return legend + "\n".join(found), notes


class _Source:
    """Where the pictures come from: the set that was tested, and the network."""

    def __init__(self, record: Record, run: Run | None, explain: bool):
        self._record, self._run, self._explain = record, run, explain
        self._until = time.monotonic() + SECONDS
        self._videos: dict[str, Video] = {}
        self._explainer: Explainer | None = None
        self.notes: list[str] = []  # HTML
        self.gone: list[UserError] = []  # why videos have no picture
        self.explained = 0  # filmstrips
        manifest, told = record.manifest, (record.result or {}).get("manifest")
        if manifest is None:
            reason = "nothing says of which set they are"
            self._say(f"No pictures: {record.why('manifest') if 'manifest' in record.missing else reason}.", _WHERE)
        elif told not in (None, manifest.hash):
            self._say(f"No pictures: the test was of another set than {page.text(manifest.name)} is now.", _WHERE)
        else:
            self._videos = {video.name: video for video in manifest.videos if video.error is None}

    def _say(self, *parts: str) -> None:
        if (note := " ".join(parts)) not in self.notes:
            self.notes.append(note)

    def strip(self, mistake: Shown) -> np.ndarray | None:
        """A filmstrip, uint8 [H, W, 3]; None where the video is gone."""
        if not self._videos:
            return None
        try:
            if mistake.video not in self._videos:
                raise VideoError(mistake.video, "not in the set any more")
            video = self._videos[mistake.video]
            found = self._explained(mistake, video) if self._explain else None
            return _fitted(self._plain(video) if found is None else found)
        except UserError as error:
            self.gone.append(error)
            return None

    def _plain(self, video: Video) -> np.ndarray:
        """A row of frames from the whole video, uint8 [H, W, 3]."""
        places = np.unique(np.linspace(0, video.frames - 1, _COLUMNS).round().astype(np.int64))
        assert self._record.manifest is not None
        return np.concatenate(reader.decode(self._record.manifest, video, places, short_side=112), axis=1)

    def _explained(self, mistake: Shown, video: Video) -> np.ndarray | None:
        """A filmstrip of what the network looked at for its answer; None where it cannot tell, or time is up."""
        if time.monotonic() > self._until:
            self._say(f"What the network looked at is shown as far as it was known after {SECONDS} s.")
            return None
        assert self._record.manifest is not None
        try:
            self._explainer = self._explainer or self._opened()
            found = self._explainer.explain_tested(self._record.manifest, video, label=mistake.answer)
        except VideoError:
            raise
        except UserError as error:
            self._explain = False
            self._say(f"What the network looked at cannot be shown: {page.text(error, 300)}.")
            return None
        self.explained += 1
        return heatmaps.filmstrip(found, _COLUMNS)

    def _opened(self) -> Explainer:
        """What explains the checkpoint that was tested, be it the best one or not, by the clips of that test."""
        result, run = self._record.result or {}, self._run
        step, dtype = result.get("step"), result.get("dtype")
        if run is None or step not in (None, run.step) or dtype not in (None, run.config.dtype):
            run = run_lib.load(self._record.folder, step=step, dtype=dtype)
        if result.get("fingerprint", run.fingerprint) != run.fingerprint:
            raise UserError("its test was of other weights than are in the folder now: make the test again")
        config = run.config.to_dict()
        for section, key in (("clip", "clip"), ("test", "protocol")):
            if result.get(key):  # earlier versions did not tell it
                config[section] |= saved.complete_section(section, result[key])
        weights = run.weights["params"], run.weights["batch_stats"]
        try:
            return Explainer(run.definition, weights, ConfigDict(config), run.classes, run.normalization, run.mesh)
        except TypeError as error:
            raise UserError(f"test.json does not tell the clips of its test ({error}): make the test again") from error


def _fitted(image: np.ndarray) -> np.ndarray:
    """A picture no wider than the page."""
    high, wide = image.shape[:2]
    if wide <= _WIDEST:
        return image
    return cv2.resize(image, (_WIDEST, round(high * _WIDEST / wide)), interpolation=cv2.INTER_AREA)
