"""What a config asks of videos: how clips are cut and tested, what is learnt; and whether a set allows it."""

import collections
import dataclasses
import sys
from typing import Any

import jax
from flax import traverse_util
from ml_collections import ConfigDict

from jax_video import __version__, augmentation, metrics, multilabel, networks, objectives, optimizer, sharding
from jax_video.data import pipeline
from jax_video.data.manifest import SPLITS, Manifest
from jax_video.errors import UserError, shown


@dataclasses.dataclass(frozen=True)
class Task:
    """What sections `clip`, `test`, `normalize` and `train` of a config say, once read."""

    sampling: pipeline.Sampling
    protocol: pipeline.Protocol  # of the final test
    objective: objectives.Objective
    augmentation: augmentation.Augmentation

    @classmethod
    def of(cls, config: ConfigDict, manifest: Manifest | None = None) -> "Task":
        """The task of a config. Raises UserError for values out of range.

        Args:
          manifest: the set to train on, for the weights of its classes if the config asks for them.
        """
        test = config.test
        protocol = pipeline.Protocol(test.clips, test.number, test.crop, test.flip)
        weighted = manifest is not None and config.train.get("class_balance") == "loss"
        objective = _objective(config, class_weights(manifest) if manifest is not None and weighted else ())
        return cls(pipeline.Sampling(**config.clip), protocol, objective, augmentation.of(config))

    @property
    def validation(self) -> pipeline.Protocol:
        """The protocol of validations during training: one clip in the middle of each video, or its segments."""
        return pipeline.Protocol("segments" if self.sampling.segments else "uniform")


def class_weights(manifest: Manifest) -> tuple[float, ...]:
    """Weights of the classes [K], so that all count the same in training: n / (K' n_k), where n_k of the n training
    videos are of class k, and K' classes have any. The mean over the videos is 1.

    A class without a training video has weight 0, as nothing is learnt of it.
    """
    videos = collections.Counter(video.label for _, video in manifest.select("train"))
    even = videos.total() / max(1, len(videos))
    return tuple(even / videos[label] if videos[label] else 0.0 for label in range(len(manifest.classes)))


def _objective(config: ConfigDict, weights: tuple[float, ...]) -> objectives.Objective:
    """The objective of a config, by `train.loss`; None means softmax, where every video has one label."""
    loss, objective = config.train.get("loss"), objectives.of(config, weights)
    if loss not in (None, "softmax", "sigmoid"):
        raise UserError(f"train.loss is {loss!r}: choose softmax, of one label for each video, or sigmoid, of several.")
    if loss == "sigmoid" and isinstance(objective, objectives.Classification):
        if balance := config.train.get("class_balance"):
            raise UserError(
                f"train.class_balance is {balance!r}: videos with several labels are of no single class to balance; "
                "leave it out."
            )
        return multilabel.MultiLabel.of(objective)
    return objective


def _check_labels(objective: objectives.Objective, manifest: Manifest) -> None:
    """Raise UserError if an objective does not fit the labels of a set."""
    manifest.check_labels(*SPLITS)
    several = isinstance(objective, multilabel.MultiLabel)
    if several != manifest.multilabel:
        kinds = "sigmoid, of several labels" if several else "softmax, of one label for each video"
        theirs = "several labels, or none" if manifest.multilabel else "one label each"
        raise UserError(
            f"train.loss is {kinds}; the videos of {manifest.name!r} have {theirs}: leave train.loss out, and it is as "
            "the set asks for."
        )
    for split in SPLITS if several else ():
        videos = [video for _, video in manifest.select(split)]
        if videos and not any(video.label for video in videos):
            raise UserError(
                f"none of the {len(videos)} videos of the split {split!r} of {manifest.name!r} has a label: nothing "
                "can be learnt or measured there."
            )
    if len(manifest.classes) == 1 and not several and jax.process_index() == 0:
        print(metrics.note(1), file=sys.stderr)


def _decisive(config: ConfigDict) -> dict[str, Any]:
    """What all processes of a run must have alike, by key: all but places, and what only sets the pace."""
    found = {"version of jax_video": __version__, **traverse_util.flatten_dict(config.to_dict(), sep=".")}
    free = ("data.manifest", "data.workers", "init_from.path")
    return {key: value for key, value in found.items() if key not in free}


def check(config: ConfigDict, manifest: Manifest) -> None:
    """Raise UserError, before anything is trained, if training or the final test is bound to fail.

    That is: a part to be frozen that the network lacks; videos without a label, which only knowledge transfer does not
    need; test videos that are missing or broken, unless that is allowed; an unknown protocol; clips of another kind
    than the network takes. A set without test videos passes: it can be trained. Warns on stderr of doubtful settings,
    such as a teacher with random weights.
    """
    sharding.check_same_set(manifest.hash)
    sharding.check_same(_decisive(config))
    task = Task.of(config)
    if freeze := config.train.get("freeze"):
        optimizer.check_frozen(config.model.name, freeze)
    transfers = isinstance(task.objective, objectives.Correspondence)
    if not transfers:
        _check_labels(task.objective, manifest)
    if transfers and (config.train.micro_batch or config.train.batch) < 2:
        raise UserError(
            f"train.batch={config.train.batch} and train.micro_batch={config.train.micro_batch} leave single videos, "
            "which make no negative pair: knowledge transfer needs two or more at once."
        )
    if transfers and not config.init_from.path and jax.process_index() == 0:
        print("The teacher has random weights: give ImageNet's, weights=resnet50.pth of torchvision.", file=sys.stderr)
    if freeze and not config.init_from.path and jax.process_index() == 0:
        print(f"{', '.join(freeze)}: frozen as drawn at random. Give weights, init_from.path.", file=sys.stderr)
    if config.train.get("class_balance") and jax.process_index() == 0:
        empty = [name for name, weight in zip(manifest.classes, class_weights(manifest), strict=True) if not weight]
        if empty:
            what = f"{len(empty)} of {len(manifest.classes)} classes have no training video, {empty[0]} first"
            print(f"train.class_balance: {shown(what)}; the others are balanced.", file=sys.stderr)
    sampling = task.sampling
    network = networks.find(config.model.name)
    stem = config.model.get("frames", network.keywords.get("frames"))  # CoST's networks take clips of any length
    if sampling.frames in network.stems and stem != sampling.frames and jax.process_index() == 0:
        print(
            f"model.frames={stem} is the stem for clips of so many frames, and clip.frames is {sampling.frames}, which "
            "has a stem of its own.",
            file=sys.stderr,
        )
    without_flow = pipeline.check_stored(manifest, sampling)
    split = config.test.get("split", "test")
    if split not in SPLITS:
        raise UserError(f"test.split is {split!r}: choose {', '.join(SPLITS)}.")
    listed = sum(video.split == split for video in manifest.videos)
    readable = sum(video.name not in without_flow for _, video in manifest.select(split))
    if readable < listed and not config.test.allow_partial:
        raise UserError(
            f"only {readable} of the {listed} videos of the split {split!r} of {manifest.name!r} can be read; "
            "accuracy on a part is not comparable. Bring the others, or accept it: --config.test.allow_partial=True."
        )
    if config.test.batch < 1:
        raise UserError(f"test.batch is {config.test.batch}: expected at least 1.")
    if not manifest.flip and (sampling.flip or task.protocol.flip) and jax.process_index() == 0:
        print(f"Clips of {manifest.name} are mirrored, although its classes tell left from right.", file=sys.stderr)
    pipeline.cropped_clips(manifest, split, sampling, task.protocol)  # raises where unknown
    if bool(sampling.segments) != bool(config.model.get("consensus")) and not transfers:
        raise UserError(
            f"clip.segments is {sampling.segments} and model.consensus {config.model.get('consensus', False)}: several "
            "clips of a video are for a network with consensus, and it for them."
        )
    if tuple(sampling.streams) != network.streams:
        raise UserError(
            f"clip.streams is {tuple(sampling.streams)}, but {config.model.name} takes {network.streams}: give it that."
        )
