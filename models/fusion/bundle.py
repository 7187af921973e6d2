"""The fusion bundle: heads, temperatures and thresholds as plain JSON that runs no code when it is loaded.

The file holds the digest of its own content, so that an edited bundle is refused also where no pipeline pins it.
"""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from clipwarden.models.catalogue import CATALOGUE, SEED_HEADS
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.shared.contracts import Digest, Score, Thresholds

FORMAT: Final = 1
DEFAULT_BUNDLE: Final = "default.json"
LARGEST_BUNDLE: Final = 16 * 1024 * 1024
TEMPERATURE_RANGE: Final = (0.5, 5.0)

Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
"""Bounded so that no sum of products over a head's columns can overflow."""
Scale = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_+-]{0,199}$")]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Linear(Frozen):
    """Logistic regression over standardised columns: intercept + Σ coef · (x - mean) / scale."""

    intercept: Number
    coef: tuple[Number, ...]
    mean: tuple[Number, ...]
    scale: tuple[Scale, ...]


class Bound(Frozen):
    """A share of clips that may be called wrongly: as observed, or with `confidence` by Clopper and Pearson."""

    at_most: Share
    confidence: Share | None = None


class Policy(Frozen):
    """How thresholds come about: given outright, or from bounds on both errors over a head's held-out clips.

    `false_positives` bounds the real clips called fake, `misses` the fake clips called real. Bounded thresholds stay
    `margin` away from one half, so that chance is never a verdict.
    """

    false_positives: Bound | None = None
    misses: Bound | None = None
    margin: float = Field(default=0.05, gt=0, lt=0.5)
    thresholds: Thresholds | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        bounds = {self.false_positives is None, self.misses is None}
        if bounds != {self.thresholds is not None}:
            raise ValueError("a policy has thresholds, or both false_positives and misses")
        return self


class HeldOut(Frozen):
    """Probabilities of clips that neither the fit nor the temperature saw, and how many groups they come from."""

    real: tuple[Score, ...]
    fake: tuple[Score, ...]
    real_groups: int
    fake_groups: int


class Head(Frozen):
    """One fitted head.

    `inputs` "catalogue": columns are transformed as the catalogue says; "raw": values as the detectors report them,
    which is how the 5-way pipeline's heads were fitted. `seen` is the range of each column in training, `held_out` what
    thresholds are chosen from, `data` the digest of the training table; a head from elsewhere has none of the three.
    `thresholds` by policy: a head takes part in the policies that its clips can support.
    """

    name: Name
    feature_cols: tuple[str, ...] = Field(min_length=1)
    inputs: Literal["catalogue", "raw"] = "catalogue"
    model: Linear
    temperature: float = Field(ge=TEMPERATURE_RANGE[0], le=TEMPERATURE_RANGE[1])
    thresholds: dict[str, Thresholds]
    seen: tuple[tuple[Number, Number], ...] | None = None
    held_out: HeldOut | None = None
    fitted_on: str
    data: Digest | None = None
    metrics: dict[str, FiniteFloat] = {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        cols, model = self.feature_cols, self.model
        if unknown := set(cols) - set(CATALOGUE):
            raise ValueError(f"columns that no detector reports: {sorted(unknown)}")
        sizes = {len(model.coef), len(model.mean), len(model.scale), len(cols if self.seen is None else self.seen)}
        if sizes != {len(cols)} or len(set(cols)) != len(cols):
            raise ValueError("coef, mean, scale and seen have one number per column, and no column comes twice")
        if wrong := wrong_signs(cols, model.coef):
            raise ValueError(f"more suspicion would lower P(fake): {wrong}")
        if self.inputs == "catalogue" and any(CATALOGUE[c].suspicion == 0 for c in cols):
            raise ValueError("counts exist for raw heads only")
        return self

    def column(self, name: str, value: float) -> float:
        """A reported value as this head's model takes it. ValueError if it is not finite or out of range."""
        feature = CATALOGUE[name]
        return feature.column(value) if self.inputs == "catalogue" else feature.checked(value)


def wrong_signs(columns: tuple[str, ...], coef: tuple[float, ...]) -> list[str]:
    """Columns whose coefficient has the sign that the catalogue excludes."""
    return [name for name, c in zip(columns, coef, strict=True) if c * CATALOGUE[name].suspicion < 0]


class Unfitted(Frozen):
    """A head that is known by name and columns but has no coefficients here; it is never used."""

    name: Name
    feature_cols: tuple[str, ...]


SEEDS: Final = tuple(Unfitted(name=name, feature_cols=columns) for name, columns in SEED_HEADS.items())


class FusionBundle(Frozen):
    """All heads of a pipeline; `policy` is the one of `policies` that verdicts follow."""

    format: int = Field(ge=FORMAT, le=FORMAT)
    policy: str
    policies: dict[Name, Policy]
    heads: tuple[Head, ...] = Field(min_length=1)
    unfitted: tuple[Unfitted, ...] = ()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        names = [head.name for head in self.heads] + [head.name for head in self.unfitted]
        if len(set(names)) != len(names):
            raise ValueError("two heads have one name")
        if strange := {p for head in self.heads for p in head.thresholds} - set(self.policies):
            raise ValueError(f"thresholds of policies that are not there: {sorted(strange)}")
        if not any(self.policy in head.thresholds for head in self.heads):
            raise ValueError(f"no head has thresholds for the policy {self.policy}")
        return self

    def largest(self, columns: set[str], policy: str) -> Head | None:
        """The head with the most columns among those whose columns are all present and that support the policy."""
        fitting = [h for h in self.heads if policy in h.thresholds and columns.issuperset(h.feature_cols)]
        return max(fitting, key=lambda h: len(h.feature_cols), default=None)

    def head(self, name: str) -> Head:
        """Raises FusionFault for a name that no fitted head has."""
        for head in self.heads:
            if head.name == name:
                return head
        fitted = ", ".join(h.name for h in self.heads)
        state = "is not fitted" if name in {h.name for h in self.unfitted} else "is unknown"
        raise FusionFault(FaultCode.UNKNOWN_HEAD, f"the head {name} {state}; fitted are {fitted}")

    @property
    def digest(self) -> str:
        """SHA-256 of the content in canonical JSON; layout and order of keys in a file do not matter."""
        return _digest(self.model_dump(mode="json"))


def bundle_path() -> Path:
    """The bundle that ships with this version."""
    return Path(str(files("clipwarden.models.fusion").joinpath(DEFAULT_BUNDLE)))


def write_bundle(path: Path, bundle: FusionBundle) -> None:
    """Write a bundle with its digest; a reader sees the old file or the new one."""
    content = {"digest": bundle.digest, **bundle.model_dump(mode="json")}
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    part.replace(path)


def read_bundle(path: Path, digest: str | None = None) -> tuple[FusionBundle, str]:
    """A bundle and its digest. Raises FusionFault if it is missing, malformed, edited, or not the one with `digest`."""
    content = _content(path)
    stated = content.pop("digest", None)
    if content.get("format") != FORMAT:
        raise FusionFault(
            FaultCode.OTHER_VERSION,
            f"{path.name} has format {content.get('format')!r}, this version reads {FORMAT}: fit or import it again",
        )
    try:
        bundle = FusionBundle.model_validate(content)
    except ValidationError as error:
        raise FusionFault(FaultCode.MALFORMED, f"the fusion bundle {path.name} is malformed: {error}") from error
    actual = bundle.digest
    if stated != actual:
        raise FusionFault(FaultCode.EDITED, f"{path.name} was edited: it states {stated}, its content is {actual}")
    if digest is not None and actual != digest:
        raise FusionFault(FaultCode.OTHER_BUNDLE, f"the fusion bundle is {actual}, the pipeline asks for {digest}")
    return bundle, actual


def _content(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_BUNDLE + 1)
    except OSError as error:
        raise FusionFault(FaultCode.UNREADABLE, f"the fusion bundle cannot be read: {error}") from error
    if len(raw) > LARGEST_BUNDLE:
        raise FusionFault(FaultCode.TOO_LARGE, f"{path.name} is larger than {LARGEST_BUNDLE} bytes")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FusionFault(FaultCode.MALFORMED, f"the fusion bundle {path.name} is malformed: {error}") from error
    if not isinstance(content, dict):
        raise FusionFault(FaultCode.MALFORMED, f"the fusion bundle {path.name} is malformed: not an object")
    return content


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
