"""The report's pictures: ROC, reliability, confusion, score distribution, robustness. One SVG text each.

Lines and letters are drawn in a stand-in colour that `themed` makes the page's own, so that one picture can be read on
light and dark ground.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clipwarden.models.fusion.replay import LABELS
from clipwarden.models.training.evaluation.figures import BINS, Bools, Floats, steps
from clipwarden.models.training.evaluation.subjects import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK: Final = "#010203"
COLOURS: Final = ("#2f7fd1", "#d9822b", "#3a9d5d", "#b0559c", "#8a7a2e", "#c0504d", "#5b6ee1", "#777f88")
FAKE_COLOUR, REAL_COLOUR = COLOURS[5], COLOURS[2]
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def drawn(name: str, paint: Callable[["Axes"], None], size: tuple[float, float] = (5.0, 4.0)) -> str:
    """One picture as SVG, its ids its own. The same data gives the same text."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLOURS), "svg.hashsalt": name}
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        made = io.StringIO()
        figure.savefig(made, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = made.getvalue()
    return re.sub(r'id="([A-Za-z0-9.]+_\d+)"', rf'id="{name}-\1"', text[text.index("<svg") :])


def themed(svg: str) -> str:
    """For a page: letters and axes in the text's colour."""
    return svg.replace(INK, "currentColor")


def standing_alone(svg: str) -> str:
    """For a file: on white ground, whatever shows it."""
    start = svg.index(">") + 1
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg[:start]}{ground}{svg[start:]}'


def roc(fake: Bools, subjects: Sequence[Subject]) -> str:
    """One line per subject that has both labels."""

    def paint(axes: "Axes") -> None:
        for subject in subjects:
            present = subject.present
            if len(np.unique(fake[present])) == 2:
                x, y = _roc(fake[present], subject.score[present])
                axes.plot(x, y, label=subject.name, linewidth=1.6)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7, linestyle=":")
        axes.set(xlabel="real called fake", ylabel="fake found", xlim=(0, 1), ylim=(0, 1.01))
        if len(axes.lines) > 1:
            axes.legend(frameon=False, loc="lower right", fontsize=8)

    return drawn("roc", paint, (5.6, 4.6))


def _roc(fake: Bools, score: Floats) -> tuple[Floats, Floats]:
    at = steps(fake, score, np.ones((1, len(fake))))
    sides = (np.append(0, np.cumsum(side[0, ::-1]) / side.sum()) for side in (at.real, at.fake))
    x, y = sides
    return x, y


def reliability(fake: Bools, subject: Subject) -> str:
    """Share of fakes among the items of each tenth of the probability, with 95 % Wilson intervals as if independent."""
    present = subject.present
    p, y = subject.score[present], fake[present]

    def paint(axes: "Axes") -> None:
        bins = np.minimum((p * BINS).astype(int), BINS - 1)
        for b in np.unique(bins):
            of = bins == b
            low, high = _wilson(int(y[of].sum()), int(of.sum()))
            axes.plot([p[of].mean()] * 2, [low, high], color=COLOURS[0], linewidth=1)
            axes.plot(p[of].mean(), y[of].mean(), "o", color=COLOURS[0], markersize=5)
            top = (p[of].mean(), max(high, y[of].mean()))
            axes.annotate(str(of.sum()), top, (0, 4), textcoords="offset points", ha="center", fontsize=7)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7, linestyle=":")
        axes.set(xlabel=f"P(fake), {subject.name}", ylabel="share of fakes", xlim=(0, 1), ylim=(0, 1.1))

    return drawn("reliability", paint)


def _wilson(found: int, n: int, z: float = 1.96) -> tuple[float, float]:
    middle, reach = (found + z * z / 2) / (n + z * z), z * np.sqrt(found * (n - found) / n + z * z / 4) / (n + z * z)
    return float(middle - reach), float(middle + reach)


def confusion(fake: Bools, subject: Subject) -> str:
    """Items by true label and verdict; shade is the share of the true label."""
    from matplotlib.patches import Rectangle

    present = subject.present
    table = np.array([[(present & (fake == truth) & (subject.label == k)).sum() for k in range(3)] for truth in (0, 1)])

    def paint(axes: "Axes") -> None:
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        for (row, column), count in np.ndenumerate(table):
            shade = {"facecolor": COLOURS[0], "alpha": 0.6 * share[row, column], "linewidth": 0}
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **shade))
            axes.text(column, row, f"{count}\n{share[row, column]:.0%}", ha="center", va="center")
        axes.set_xticks(range(3), [f"called {label}" for label in LABELS])
        axes.set_yticks(range(2), ["real", "fake"])
        axes.set(xlim=(-0.5, 2.5), ylim=(-0.5, 1.5))
        axes.tick_params(length=0)

    return drawn("confusion", paint, (5.0, 2.6))


def distribution(fake: Bools, subjects: Sequence[Subject]) -> str:
    """Histograms of the scores of both labels, one row per subject, each label summing to one."""

    def paint(axes: "Axes") -> None:
        edges = np.linspace(0, 1, 31)
        for k, subject in enumerate(subjects):
            for side, colour in ((fake, FAKE_COLOUR), (~fake, REAL_COLOUR)):
                counts = np.histogram(subject.score[subject.present & side], edges)[0]
                height = counts / max(counts.max(), 1) * 0.42
                sign = 1 if side is fake else -1
                axes.fill_between(
                    edges[:-1], -k, -k + sign * height, step="post", color=colour, alpha=0.75, linewidth=0
                )
            axes.axhline(-k, color=INK, linewidth=0.5)
        axes.set_yticks([-k for k in range(len(subjects))], [s.name for s in subjects])
        axes.set(xlabel="score (above the line: fake items, below: real items)", xlim=(0, 1))
        axes.spines["left"].set_visible(False)

    return drawn("distribution", paint, (6.4, 1.0 + 0.75 * len(subjects)))


def robustness(curve: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """AUC by strength of re-compression, one line per subject: level → subject → value, low, high."""
    levels = list(curve)

    def paint(axes: "Axes") -> None:
        for k, name in enumerate(next(iter(curve.values()), {})):
            at = [i for i, level in enumerate(levels) if name in curve[level]]
            value, low, high = (np.array([curve[levels[i]][name][side] for i in at]) for side in range(3))
            axes.errorbar(
                np.array(at) + 0.04 * k, value, [value - low, high - value], marker="o", capsize=2, label=name
            )
        axes.axhline(0.5, color=INK, linewidth=0.7, linestyle=":")
        axes.set_xticks(range(len(levels)), levels)
        axes.set(ylabel="AUC", ylim=(0, 1.02))
        axes.legend(frameon=False, fontsize=8, loc="lower left")

    return drawn("robustness", paint)
