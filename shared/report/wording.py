"""What a report says of a verdict in plain words, and how it shows the words of others."""

import unicodedata
from typing import Final

from clipwarden.shared.contracts import Branch, Label, OutcomeStatus, Verdict
from clipwarden.shared.report.case import Case
from clipwarden.shared.report.svg import percent

BRANCHES: Final[dict[Branch, str]] = {
    Branch.VISUAL: "Faces and frames",
    Branch.AUDIO: "Speech",
    Branch.LIPSYNC: "Lips against speech",
    Branch.CLIP: "Scene as a whole",
}

STATUS: Final[dict[OutcomeStatus, str]] = {
    OutcomeStatus.OK: "examined",
    OutcomeStatus.SKIPPED: "skipped",
    OutcomeStatus.FAILED: "failed",
}

HEADLINES: Final[dict[Label, tuple[str, str]]] = {
    Label.FAKE: (
        "Judged fake",
        "The evidence taken together speaks for a manipulated clip. It is for a person to look at, and no proof.",
    ),
    Label.REAL: (
        "Judged real",
        "The evidence taken together speaks for a genuine clip. That no manipulation was noticed proves nothing.",
    ),
    Label.INCONCLUSIVE: (
        "Inconclusive",
        "The evidence does not decide. This finding says neither that the clip is real nor that it is fake.",
    ),
}
NOTHING_WEIGHED: Final = "Nothing that was found could be weighed, so there is no probability. The clip may be either."
NO_VERDICT: Final = "There is no verdict on this file. That says nothing about whether it is real or fake."

JOINERS: Final = "\n\u200c\u200d"
"""What cannot be seen and is left alone: line ends, and what some scripts and emoji are joined by."""

RARE: Final = 0.01
"""The share of fakes that the meaning of a probability is told for, beside the one half that heads are fitted to."""


def headline(case: Case) -> tuple[str, str]:
    """The verdict in a few words, and what they mean."""
    verdict, passage = case.verdict, case.passage
    if verdict is None:
        ended = passage.state if passage else "failed"
        return (
            f"No verdict: {ended}",
            f"{passage.sentence} {NO_VERDICT}" if passage and passage.sentence else NO_VERDICT,
        )
    words, meaning = HEADLINES[verdict.label]
    return words, meaning if verdict.probability is not None else NOTHING_WEIGHED


def meaning(verdict: Verdict) -> list[str]:
    """What the probability stands for; how often such a verdict is wrong where that was counted."""
    if verdict.probability is None:
        return []
    p = verdict.probability
    about = f"Of 100 clips with this number, about {100 * p:.0f} are fake, as far as they are like the clips that the"
    told = [f"{about} fusion was fitted on."]
    if verdict.error_rates is not None:
        odds = p / max(1 - p, 1e-9) * RARE / (1 - RARE)
        told[0] += (
            " Half of those were fake. Among clips of which one in a hundred is fake, the same evidence would mean"
            f" {percent(odds / (1 + odds), 1)}."
        )
        told.append(
            f"{verdict.error_rates.text} These clips came from {verdict.error_rates.real_groups} groups of related real"
            f" ones and {verdict.error_rates.fake_groups} of fake ones, so the true shares may lie farther off."
        )
    return told


def plain(said: object) -> str:
    """Anybody's words with what a reader cannot see made visible: control characters, turns of direction, halves."""
    return "".join(f"\\u{ord(c):04x}" if _unseen(c) else c for c in str(said))


def _unseen(c: str) -> bool:
    category = unicodedata.category(c)
    return category in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"} and c not in JOINERS
