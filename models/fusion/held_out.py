"""How often a head was right and wrong at two thresholds, counted over the clips that it was held out from.

Thresholds are chosen on these same clips, so the shares flatter it a little; what they stand for is that sort of clip.
"""

from typing import Final

from scipy.special import betaincinv

from clipwarden.models.fusion.bundle import HeldOut
from clipwarden.shared.contracts import ErrorRates, Label, Share, Thresholds

OUTSIDE: Final = 0.05
"""Of the confidence of an interval, half on either side."""

SENTENCES: Final[dict[Label, str]] = {
    Label.FAKE: "Of {real} real clips held out of the fit, {alarms} were called fake as well. "
    "Of {fake} fake ones it found {found}.",
    Label.REAL: "Of {fake} fake clips held out of the fit, {missed} were called real as well. "
    "Of {real} real ones it cleared {cleared}.",
    Label.INCONCLUSIVE: "Of the clips held out of the fit, {open:.0%} stayed open like this one. "
    "Of {real} real ones {alarms} were called fake, of {fake} fake ones {missed} were called real.",
}


def error_rates(held_out: HeldOut, thresholds: Thresholds, label: Label) -> ErrorRates | None:
    """Counts with intervals, and the sentence for this label; None where clips of one of the truths are missing."""
    if not held_out.real or not held_out.fake:
        return None
    both = held_out.real, held_out.fake
    alarms, found = (share(sum(p >= thresholds.fake for p in clips), len(clips)) for clips in both)
    cleared, missed = (share(sum(p <= thresholds.real for p in clips), len(clips)) for clips in both)
    undecided = 1 - sum(s.count for s in (alarms, found, cleared, missed)) / (alarms.clips + found.clips)
    return ErrorRates(
        real_called_fake=alarms,
        real_called_real=cleared,
        fake_called_fake=found,
        fake_called_real=missed,
        real_groups=held_out.real_groups,
        fake_groups=held_out.fake_groups,
        text=SENTENCES[label].format(
            real=alarms.clips,
            fake=missed.clips,
            alarms=_wrong(alarms),
            missed=_wrong(missed),
            found=found.count,
            cleared=cleared.count,
            open=undecided,
        ),
    )


def share(count: int, clips: int) -> Share:
    """With the two-sided interval of Clopper and Pearson."""
    low = betaincinv(count, clips - count + 1, OUTSIDE / 2) if count else 0.0
    high = betaincinv(count + 1, clips - count, 1 - OUTSIDE / 2) if count < clips else 1.0
    return Share(count=count, clips=clips, low=float(low), high=float(high))


def _wrong(counted: Share) -> str:
    told = f"{counted.count / counted.clips:.0%}, with 95% confidence {counted.low:.0%} to {counted.high:.0%}"
    return f"{counted.count} ({told})"
