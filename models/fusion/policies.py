"""Policies: how much error an operator accepts, and the thresholds that a head's held-out clips allow for it.

A bound with a confidence is that of Clopper and Pearson (Biometrika 1934): the threshold is the least one at which the
number of wrong calls among n held-out clips bounds the true share. The number is fixed by n before any score is looked
at, so choosing the threshold by it costs no confidence. Clips are taken as independent; groups of related ones are not,
which is why their number is told beside that of the clips.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError
from scipy.special import betaincinv

from clipwarden.models.fusion.bundle import Bound, Frozen, FusionBundle, Head, HeldOut, Name, Policy
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.shared.contracts import Thresholds

TOLD_CONFIDENCE: Final = 0.95
"""For the upper bounds that are told of policies without a confidence of their own."""

PREDEFINED: Final[dict[str, Policy]] = {
    "balanced": Policy(false_positives=Bound(at_most=0.10), misses=Bound(at_most=0.10)),
    "low-false-positive": Policy(
        false_positives=Bound(at_most=0.05, confidence=0.95),
        misses=Bound(at_most=0.10),
    ),
    "high-recall": Policy(
        false_positives=Bound(at_most=0.30),
        misses=Bound(at_most=0.05, confidence=0.95),
        margin=0.01,
    ),
}


class PolicyFile(Frozen):
    """What an operator writes: `[policies.NAME]` tables in TOML, or the same in JSON."""

    policies: dict[Name, Policy] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a policy does on a head's held-out clips.

    `false_positive_bound` is the upper Clopper-Pearson bound of the share of real clips called fake.
    """

    head: str
    policy: str
    thresholds: Thresholds
    real: int
    real_groups: int
    called_fake: int
    false_positive_bound: float
    found: float
    missed: float
    conclusive: float


def read_policies(path: Path) -> dict[str, Policy]:
    """An operator's policies. Raises FusionFault if the file is not as `PolicyFile`, or redefines a predefined one."""
    try:
        text = path.read_text("utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        policies = PolicyFile.model_validate(content).policies
    except (OSError, ValueError, RecursionError) as error:
        detail = _words(error) if isinstance(error, ValidationError) else str(error)
        raise FusionFault(FaultCode.POLICY_MALFORMED, f"{path} holds no policies: {detail}") from error
    if taken := policies.keys() & PREDEFINED.keys():
        raise FusionFault(FaultCode.POLICY_MALFORMED, f"{path} redefines {', '.join(sorted(taken))}; give other names")
    return policies


def with_policies(bundle: FusionBundle, added: Mapping[str, Policy], default: str | None = None) -> FusionBundle:
    """The bundle with more policies, thresholds of each head computed; `default` becomes the one verdicts follow.

    Raises FusionFault if a head's clips cannot support a bound, or no head can follow the default.
    """
    policies = {**bundle.policies, **added}
    chosen = default or bundle.policy
    if chosen not in policies:
        raise FusionFault(FaultCode.UNKNOWN_POLICY, f"there is no policy {chosen}; there are {', '.join(policies)}")
    heads = [h.model_copy(update={"thresholds": {**h.thresholds, **_for_head(h, added)}}) for h in bundle.heads]
    if not any(chosen in head.thresholds for head in heads):
        raise FusionFault(FaultCode.BOUND_UNSUPPORTED, f"no head has the held-out clips to follow {chosen}")
    return FusionBundle(
        format=bundle.format, policy=chosen, policies=policies, heads=tuple(heads), unfitted=bundle.unfitted
    )


def _for_head(head: Head, policies: Mapping[str, Policy]) -> dict[str, Thresholds]:
    """A head without held-out clips follows only the policies that give thresholds outright."""
    found: dict[str, Thresholds] = {}
    for name, policy in policies.items():
        if policy.thresholds is not None:
            found[name] = policy.thresholds
        elif head.held_out is not None:
            found[name] = thresholds(policy, head.held_out, f"head {head.name}, policy {name}")
    return found


def supported(policies: Mapping[str, Policy], held_out: HeldOut) -> dict[str, Thresholds]:
    """Thresholds of those policies that the clips support."""
    found: dict[str, Thresholds] = {}
    for name, policy in policies.items():
        try:
            found[name] = thresholds(policy, held_out, name)
        except FusionFault as fault:
            if fault.code != FaultCode.BOUND_UNSUPPORTED:
                raise
    return found


def thresholds(policy: Policy, held_out: HeldOut, what: str) -> Thresholds:
    """The least extreme thresholds within the policy's bounds. FusionFault if the clips cannot support one."""
    if policy.thresholds is not None:
        return policy.thresholds
    assert policy.false_positives is not None
    assert policy.misses is not None
    upper = _beyond(sorted(held_out.real, reverse=True), policy.false_positives, 1.0, f"{what}: real clips")
    lower = _beyond(sorted(held_out.fake), policy.misses, 0.0, f"{what}: fake clips")
    return Thresholds(real=min(lower, 0.5 - policy.margin), fake=max(upper, 0.5 + policy.margin))


def _beyond(extreme_first: Sequence[float], bound: Bound, end: float, what: str) -> float:
    """The probability towards `end` from which on no more clips are called than the bound allows."""
    n = len(extreme_first)
    allowed = _allowed(n, bound)
    if allowed < 0 or n == 0:
        least = upper_bound(0, n, bound.confidence or TOLD_CONFIDENCE)
        raise FusionFault(
            FaultCode.BOUND_UNSUPPORTED,
            f"{what}: {n} held-out clips cannot support at most {bound.at_most:.2%}"
            f" with confidence {bound.confidence or TOLD_CONFIDENCE:.0%}; their least bound is {least:.2%}",
        )
    if extreme_first[allowed] == end:
        raise FusionFault(FaultCode.BOUND_UNSUPPORTED, f"{what}: more than {allowed} of {n} have probability {end:.0f}")
    return math.nextafter(extreme_first[allowed], end)


def _allowed(n: int, bound: Bound) -> int:
    """How many of n clips may be called wrongly; -1 if none would already pass the bound."""
    if bound.confidence is None:
        return min(math.floor(bound.at_most * n), n - 1)
    k = -1
    while k + 1 < n and upper_bound(k + 1, n, bound.confidence) <= bound.at_most:
        k += 1
    return k


def upper_bound(errors: int, clips: int, confidence: float) -> float:
    """One-sided upper bound of Clopper and Pearson for the share behind `errors` of `clips`."""
    return 1.0 if errors >= clips else float(betaincinv(errors + 1, clips - errors, confidence))


def figures(bundle: FusionBundle) -> list[Figures]:
    """Every policy on every head that has held-out clips, in the bundle's order."""
    return [
        _figures(head, head.held_out, name, bundle.policies[name])
        for head in bundle.heads
        if head.held_out is not None
        for name in bundle.policies
        if name in head.thresholds
    ]


def _figures(head: Head, held_out: HeldOut, name: str, policy: Policy) -> Figures:
    t = head.thresholds[name]
    bound = policy.false_positives
    confidence = (bound.confidence if bound else None) or TOLD_CONFIDENCE
    alarms, found = (sum(p >= t.fake for p in clips) for clips in (held_out.real, held_out.fake))
    cleared, missed = (sum(p <= t.real for p in clips) for clips in (held_out.real, held_out.fake))
    n_real, n_fake = len(held_out.real), len(held_out.fake)
    return Figures(
        head=head.name,
        policy=name,
        thresholds=t,
        real=n_real,
        real_groups=held_out.real_groups,
        called_fake=alarms,
        false_positive_bound=upper_bound(alarms, n_real, confidence),
        found=found / n_fake,
        missed=missed / n_fake,
        conclusive=(alarms + found + cleared + missed) / (n_real + n_fake),
    )


def _words(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
