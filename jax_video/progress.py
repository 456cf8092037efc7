"""What the host knows of a training run."""

import dataclasses

from jax_video import metrics, optimizer
from jax_video.data import documents
from jax_video.errors import CheckpointError

_PLATEAU = dict.fromkeys(("patience", "drops", "stale", "dropped"), int) | {"threshold": float, "best": object}
_EARLY = {"patience": object, "loss": object, "metric": object, "stale": int}
_PROGRESS = {"meter": {"*": float}, "plateau": _PLATEAU, "early?": _EARLY, "validated": int, "begun?": int}


@dataclasses.dataclass
class Progress:
    """What the host knows of a run beside the arrays; part of every checkpoint, as JSON."""

    meter: metrics.Meter = dataclasses.field(default_factory=metrics.Meter)
    plateau: optimizer.Plateau = dataclasses.field(default_factory=optimizer.Plateau)
    early: optimizer.EarlyStop = dataclasses.field(default_factory=optimizer.EarlyStop)
    validated: int = 0  # the last step after which there was a validation
    begun: int = 0  # the step at which the present schedule began: not the first one in a run that was extended

    def to_dict(self) -> dict:
        """A copy as a dictionary for JSON: checkpoints are written while the run goes on."""
        return {
            "meter": dict(self.meter.totals),
            "plateau": dataclasses.asdict(self.plateau),
            "early": dataclasses.asdict(self.early),
            "validated": self.validated,
            "begun": self.begun,
        }

    @classmethod
    def from_dict(cls, saved: dict) -> "Progress":
        """The inverse of `to_dict`. Raises CheckpointError for a dictionary that `to_dict` cannot have made."""
        if wrong := documents.defect(saved, _PROGRESS):
            raise CheckpointError(
                f"the newest checkpoint is none to go on from ({wrong}); remove it for the one before."
            )
        early = optimizer.EarlyStop(**saved.get("early", {}))
        plateau = optimizer.Plateau(**saved["plateau"])
        return cls(metrics.Meter(saved["meter"]), plateau, early, saved["validated"], saved.get("begun", 0))

    def judge(self, validation: dict[str, float], *, plateau: bool) -> str:
        """Take in a validation; what follows from it, in words, or "". `plateau`: whether its rule counts."""
        dropped, patience = self.plateau.dropped, self.plateau.patience
        self.early.update(validation["loss"], metrics.headline(validation)[1])
        if plateau:
            self.plateau.update(validation["loss"])
        if self.early.finished:
            return f"Stopped early: {self.early.patience} validations were no better"
        if self.plateau.finished:
            return f"Stopped: {patience} validations were no lower in loss, and the rate has had its {dropped} drops"
        if self.plateau.dropped > dropped:
            return f"The learning rate is divided by 10: {patience} validations were no lower in loss"
        return ""

    @property
    def finished(self) -> bool:
        """Whether the validations end the training: by the plateau rule, or by early stopping."""
        return self.plateau.finished or self.early.finished
