"""The fused answer, and all that is said of it."""

from enum import StrEnum
from typing import Self

from pydantic import Field, FiniteFloat, model_validator

from clipwarden.shared.branch import Branch
from clipwarden.shared.contract import Contract, Score


class Label(StrEnum):
    FAKE = "fake"
    REAL = "real"
    INCONCLUSIVE = "inconclusive"


class Thresholds(Contract):
    """Fake at or above `fake`, real at or below `real`, inconclusive between."""

    real: Score
    fake: Score

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.real < self.fake:
            raise ValueError("the threshold for real is below the one for fake")
        return self


class Share(Contract):
    """So many of so many clips, and between which shares the true one lies with a confidence of 95 %."""

    count: int = Field(ge=0)
    clips: int = Field(gt=0)
    low: Score
    high: Score


class ErrorRates(Contract):
    """How often the head was right and wrong on clips that it was not fitted on; the thresholds were chosen on them.

    Intervals take clips as independent; they come from so many groups of related ones. `text` says in one sentence
    what that means for the label of the verdict.
    """

    real_called_fake: Share
    real_called_real: Share
    fake_called_fake: Share
    fake_called_real: Share
    real_groups: int = Field(ge=0)
    fake_groups: int = Field(ge=0)
    text: str


class Contribution(Contract):
    """What one detector added to the log-odds of fake; exact."""

    branch: Branch
    detector: str
    log_odds: FiniteFloat


class Reason(Contract):
    code: str
    text: str


class Range(Contract):
    """A suspicious stretch of the clip, merged over branches; `peak` is the highest score of a window in it."""

    start_s: float = Field(ge=0, allow_inf_nan=False)
    end_s: float = Field(ge=0, allow_inf_nan=False)
    branches: tuple[Branch, ...] = Field(min_length=1)
    peak: Score


class Alternative(Contract):
    """What another policy would say of the same evidence, by the head that can follow it."""

    policy: str
    label: Label
    probability: Score | None
    head: str | None


class Verdict(Contract):
    """The fused answer. `baseline_logit` plus all contributions is logit(probability), exactly.

    Without a usable branch the label is inconclusive, and probability, head and baseline are None. `localised`: short
    ranges carry the evidence. `out_of_domain`: a feature lies outside what the head was fitted on, None where nobody
    knows what that was. `error_rates` is None for a head whose bundle holds no clips to count.
    """

    label: Label
    probability: Score | None
    policy: str
    head: str | None
    thresholds: Thresholds | None = None
    error_rates: ErrorRates | None = None
    coverage: Score
    degraded: bool
    baseline_logit: FiniteFloat | None
    contributions: tuple[Contribution, ...] = ()
    reasons: tuple[Reason, ...] = ()
    ranges: tuple[Range, ...] = ()
    localised: bool = False
    out_of_domain: bool | None = None
    alternatives: tuple[Alternative, ...] = ()

    @model_validator(mode="after")
    def _no_number_without_a_head(self) -> Self:
        present = {self.probability is None, self.head is None, self.baseline_logit is None}
        if len(present) != 1:
            raise ValueError("probability, head and baseline come together")
        if self.head is None and self.label is not Label.INCONCLUSIVE:
            raise ValueError("a verdict without evidence is inconclusive")
        return self
