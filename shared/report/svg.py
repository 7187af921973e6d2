"""Shapes and words of inline SVG, in one width; what they look like is the page's style."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

WIDTH: Final = 680
LEFT, RIGHT = 170, 670
"""Where an axis begins and ends; what a row is called stands before it."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a value lies between LEFT and RIGHT; what is beyond the ends lies on them."""

    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.start) / max(self.end - self.start, 1e-9)
        return LEFT + min(max(share, 0.0), 1.0) * (RIGHT - LEFT)


def drawing(height: float, told: str, shapes: Sequence[Markup]) -> Markup:
    """`told` says to who cannot see it what it shows."""
    head = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">').format(WIDTH, height, told)
    return head + Markup("").join(shapes) + Markup("</svg>")


def rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x, y, width, height
    )


def across(x1: float, x2: float, y: float, kind: str) -> Markup:
    return Markup('<path class="{}" d="M{:.1f} {:.1f}H{:.1f}"/>').format(kind, x1, y, x2)


def down(x: float, y1: float, y2: float, kind: str) -> Markup:
    return Markup('<path class="{}" d="M{:.1f} {:.1f}V{:.1f}"/>').format(kind, x, y1, y2)


def path(moves: str, kind: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, moves) if moves else Markup("")


def words(x: float, y: float, said: str, anchor: str = "middle", kind: str = "soft") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, said)


def percent(share: float, places: int = 0) -> str:
    return f"{100 * share:.{places}f} %"


def clock(seconds: float) -> str:
    """As a player shows it, with decimals where it is short: 7.5 s, 1:05, 1:02:30."""
    if round(seconds, 2) < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
