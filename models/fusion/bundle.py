"""The fusion bundle: heads, temperatures and thresholds as plain JSON that runs no code when it is loaded."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.shared.errors import WorkerFault

FORMAT = 1
DEFAULT_BUNDLE = "default.json"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Coefficient = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Linear(Frozen):
    """Logistic regression over standardised columns: intercept + Σ coef · (x - mean) / scale.

    Coefficients are not negative: more suspicion never lowers P(fake).
    """

    intercept: FiniteFloat
    coef: tuple[Coefficient, ...]
    mean: tuple[FiniteFloat, ...]
    scale: tuple[Positive, ...]


class Thresholds(Frozen):
    """Fake at or above `fake`, real at or below `real`, inconclusive between."""

    real: float = Field(ge=0, le=1)
    fake: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.real < self.fake:
            raise ValueError("the threshold for real is below the one for fake")
        return self


class Head(Frozen):
    """One fitted head. `fitted_on` says on which data, `metrics` what was measured out of fold."""

    name: str
    feature_cols: tuple[str, ...] = Field(min_length=1)
    model: Linear
    temperature: float = Field(ge=0.5, le=5)
    thresholds: Thresholds
    fitted_on: str
    metrics: dict[str, FiniteFloat]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if unknown := set(self.feature_cols) - set(CATALOGUE):
            raise ValueError(f"columns that no detector reports: {sorted(unknown)}")
        if {len(self.model.coef), len(self.model.mean), len(self.model.scale)} != {len(self.feature_cols)}:
            raise ValueError("coef, mean and scale have one number per column")
        return self


class FusionBundle(Frozen):
    """All heads of a pipeline. `policy` names the rule by which the thresholds were chosen."""

    format: int = Field(ge=FORMAT, le=FORMAT)
    policy: str
    heads: tuple[Head, ...] = Field(min_length=1)

    def largest(self, columns: set[str]) -> Head | None:
        """The head with the most columns among those whose columns are all present."""
        fitting = [h for h in self.heads if columns.issuperset(h.feature_cols)]
        return max(fitting, key=lambda h: len(h.feature_cols), default=None)


def bundle_path() -> Path:
    """The bundle that ships with this version."""
    return Path(str(files("clipwarden.models.fusion").joinpath(DEFAULT_BUNDLE)))


def read_bundle(path: Path, digest: str | None = None) -> tuple[FusionBundle, str]:
    """A bundle and its digest. Raises WorkerFault if it is missing, malformed, or not the one with `digest`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise WorkerFault(f"the fusion bundle cannot be read: {error}") from error
    actual = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    if digest is not None and actual != digest:
        raise WorkerFault(f"the fusion bundle is {actual}, the pipeline asks for {digest}")
    try:
        return FusionBundle.model_validate_json(raw), actual
    except ValidationError as error:
        raise WorkerFault(f"the fusion bundle {path.name} is malformed: {error}") from error
