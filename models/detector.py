"""What a detector is, and the one table of all of them.

A detector is a spec, `load` and `assess`: it opens no file but its weights, logs nothing and decides no label.
Adding one: its file, its line in DETECTORS, its card in `cards/`, its entry in `weights.toml`.
"""

from importlib import import_module
from typing import ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict

from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Evidence, Needs

DETECTORS: dict[str, str] = {
    "forensic_mlp": "clipwarden.models.visual.forensic_mlp:ForensicMlp",
    "cqcc_cnn": "clipwarden.models.audio.cqcc_cnn:CqccCnn",
}
"""Name → "module:class", imported on use, so that a pool never imports another pool's libraries."""


class DetectorSpec(BaseModel):
    """Facts about a detector that hold without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    branch: Branch
    needs: Needs
    features: tuple[str, ...]
    parameters: int
    source: str


class Detector(Protocol):
    """Loaded weights that turn a clip into evidence."""

    spec: ClassVar[DetectorSpec]

    @classmethod
    def load(cls, weights: WeightFile, device: str) -> Self:
        """Read verified weights onto `device` ("cpu", "cuda", "cuda:0"). Raises WorkerFault if they do not fit."""
        ...

    def assess(self, clip: Clip) -> Evidence:
        """Judge one clip. Raises NotApplicable if it has nothing to judge, DetectorError if it fails on it."""
        ...


def detector_class(name: str) -> type[Detector]:
    """Import and return the class of a detector of the table. KeyError for a name that is not in it."""
    module, _, attribute = DETECTORS[name].partition(":")
    loaded: type[Detector] = getattr(import_module(module), attribute)
    return loaded
