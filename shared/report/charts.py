"""The report's charts, to be read in colour, in grey, and by their words alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Final

from markupsafe import Markup

from clipwarden.shared.contracts import Curve, Gap, Look, Range, Thresholds, Window
from clipwarden.shared.report.svg import (
    LEFT,
    RIGHT,
    WIDTH,
    Axis,
    across,
    clock,
    down,
    drawing,
    path,
    percent,
    rect,
    words,
)

MARGIN: Final = 10
ROW: Final = 26
LANE: Final = 56
APART: Final = 46
"""Least distance of two marks of an axis that bear words."""
LANDMARKS: Final = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9, 0.05, 0.95, 0.01, 0.99, 0.001, 0.999)
"""Probabilities that an axis of log-odds is marked with, as far as there is room."""
MOST_TICKS: Final = 8
STEPS_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
LEAST_REACH: Final = 0.6
"""In log-odds to either side, so that next to nothing looks like next to nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """What moved the log-odds of fake, and by how much."""

    name: str
    log_odds: float


@dataclass(frozen=True, slots=True)
class Lane:
    """What one detector said over time."""

    name: str
    windows: Sequence[Window]
    looks: Sequence[Look] = ()
    gaps: Sequence[Gap] = ()


def scale(probability: float, thresholds: Thresholds | None) -> Markup:
    """Where a probability of fake lies between the thresholds."""

    def x(p: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * p

    ends = (thresholds.real, thresholds.fake) if thresholds else (0.5,)
    shapes = [rect(x(0), 26, x(1) - x(0), 14, "zone-open")]
    if thresholds:
        real, fake = map(x, ends)
        shapes += [rect(x(0), 26, real - x(0), 14, "zone-real"), rect(fake, 26, x(1) - fake, 14, "zone-fake")]
        shapes += [words((x(0) + real) / 2, 56, "called real"), words((fake + x(1)) / 2, 56, "called fake")]
        shapes += [words((real + fake) / 2, 56, "left open")] if fake - real >= APART else []
    shapes += [down(x(p), 24, 44, "tick") for p in (0, *ends, 1)]
    shapes += [words(x(p), 72, percent(p)) for p in ends]
    shapes += [words(x(0), 72, "0 %", "start"), words(x(1), 72, "100 %", "end")]
    at = x(probability)
    shapes += [path(f"M{at:.1f} 38l-6 -15h12z", "mark")]
    shapes += [words(min(max(at, 30), WIDTH - 30), 17, percent(probability, 1), kind="strong")]
    return drawing(78, f"Probability of fake: {percent(probability, 1)}", shapes)


def balance(baseline: float, steps: Sequence[Step]) -> Markup:
    """What moved the log-odds from where every clip begins to where this one ends, a bar a step."""
    ends = [baseline]
    for step in steps:
        ends.append(ends[-1] + step.log_odds)
    reach = 1.3 * max(LEAST_REACH, *map(abs, ends))
    x = Axis(-reach, reach)
    bottom = 30.0 + ROW * (len(steps) + 2)
    shapes = [down(x(0), 22, bottom, "zero"), across(LEFT, RIGHT, bottom, "edge"), *_landmarks(x, bottom)]
    shapes += [words(LEFT, 14, "← towards real", "start"), words(RIGHT, 14, "towards fake →", "end")]
    rows = [("where every clip begins", 0.0, baseline, "bar")]
    rows += [(step.name, ends[k], ends[k + 1], "bar") for k, step in enumerate(steps)]
    rows += [("together", 0.0, ends[-1], "total")]
    for k, (name, start, end, kind) in enumerate(rows):
        shapes += _bar(name, (start, end), x, 26 + ROW * k, kind)
    shapes += [down(x(end), 44 + ROW * k, 44 + ROW * k + ROW - 16, "join") for k, end in enumerate(ends[:-1])]
    told = "".join(f", {step.name} {step.log_odds:+.2f}" for step in steps)
    return drawing(
        bottom + 22, f"Log-odds of fake: {baseline:+.2f} to begin with{told}, together {ends[-1]:+.2f}", shapes
    )


def _bar(name: str, span: tuple[float, float], x: Axis, top: float, kind: str) -> list[Markup]:
    low, high = x(min(span)), x(max(span))
    moved = span[1] - span[0]
    right = high <= RIGHT - APART
    return [
        words(LEFT - MARGIN, top + 13, name, "end", "strong" if kind == "total" else ""),
        rect(low, top + 1, max(high - low, 1), 16, f"{kind} {'fake' if moved > 0 else 'real'}"),
        words(high + 6 if right else low - 6, top + 13, f"{moved:+.2f}", "start" if right else "end", "strong"),
    ]


def _landmarks(x: Axis, bottom: float) -> Iterator[Markup]:
    taken: list[float] = []
    for p in LANDMARKS:
        at = x(log(p / (1 - p)))
        if LEFT < at < RIGHT and all(abs(at - other) >= APART for other in taken):
            taken.append(at)
            yield down(at, bottom, bottom + 4, "tick")
            yield words(at, bottom + 16, percent(p, 1 if min(p, 1 - p) < 0.01 else 0))


def timeline(duration_s: float, lanes: Sequence[Lane], ranges: Sequence[Range]) -> Markup:
    """Scores over time, a lane for each detector; what is suspicious is shaded through all of them."""
    x, bottom = Axis(0, duration_s), 8.0 + LANE * len(lanes)
    shapes = [rect(x(r.start_s), 4, max(x(r.end_s) - x(r.start_s), 2), bottom - 4, "range") for r in ranges]
    for k, lane in enumerate(lanes):
        shapes += _lane(lane, x, 8 + LANE * k)
    step = next((s for s in STEPS_S if duration_s / s <= MOST_TICKS), STEPS_S[-1])
    for second in (step * k for k in range(int(duration_s / step) + 1)):
        anchor = "end" if x(second) > RIGHT - MARGIN else "middle"
        shapes += [down(x(second), bottom, bottom + 4, "tick"), words(x(second), bottom + 16, clock(second), anchor)]
    return drawing(bottom + 22, f"Scores over {clock(duration_s)} by {', '.join(lane.name for lane in lanes)}", shapes)


def _lane(lane: Lane, x: Axis, top: float) -> Iterator[Markup]:
    high, low = top + 6, top + LANE - 10

    def y(score: float) -> float:
        return low - score * (low - high)

    yield from (across(LEFT, RIGHT, y(edge), kind) for edge, kind in ((0, "edge"), (0.5, "half"), (1, "edge")))
    yield from (rect(x(g.start_s), high, max(x(g.end_s) - x(g.start_s), 1), low - high, "gap") for g in lane.gaps)
    yield path("".join(f"M{x(w.start_s):.1f} {y(w.score):.1f}H{x(w.end_s):.1f}" for w in lane.windows), "steps")
    yield path("".join(f"M{x(look.time_s):.1f} {y(look.score):.1f}h0" for look in lane.looks), "dots")
    yield words(LEFT - 16, y(0.5) + 4, lane.name, "end", "")
    yield words(LEFT - 4, high + 4, "1", "end")
    yield words(LEFT - 4, low + 3, "0", "end")


def curve(drawn: Curve) -> Markup:
    """Numbers over seconds, such as how well lips and sound fit by how late the sound is."""
    x, top, bottom = Axis(min(drawn.x), max(drawn.x)), 12, 92
    low, high = min(0.0, *drawn.y), max(1.0, *drawn.y)
    points = (
        f"{x(a):.1f} {bottom - (b - low) / (high - low) * (bottom - top):.1f}"
        for a, b in zip(drawn.x, drawn.y, strict=True)
    )
    name = drawn.name.replace("_", " ")
    shapes = [across(LEFT, RIGHT, edge, "edge") for edge in (top, bottom)]
    shapes += [path("M" + "L".join(points), "curve"), words(LEFT - 16, (top + bottom) / 2 + 4, name, "end", "")]
    shapes += [words(LEFT - 4, top + 4, f"{high:g}", "end"), words(LEFT - 4, bottom + 3, f"{low:g}", "end")]
    for at in sorted({x.start, x.end} | ({0.0} if x.start < 0 < x.end else set())):
        told = f"{at:+.2f} s" if drawn.axis == "offset_s" and at else clock(at)
        anchor = "start" if at == x.start else "end" if at == x.end else "middle"
        shapes += [down(x(at), bottom, bottom + 4, "tick"), words(x(at), bottom + 16, told, anchor)]
    return drawing(bottom + 22, f"The curve {name}", shapes)
