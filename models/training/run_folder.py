"""A training run's folder: its configuration, what it cached, and the figures it ends with."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipwarden.models.weights import file_digest
from clipwarden.shared.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

AS_IT_IS, THINNED, CODED = "as_it_is", "thinned", "crf30"
"""A clip, the same by a part of its faces, and its copy that was compressed once more."""
CURVES: Final = "curves.csv"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One clip's out-of-fold score; label is "fake" or "real", or what the data says of it."""

    path: str
    label: str
    group: str
    fold: int
    score_logit: float
    modern: int = 0


class RunFolder:
    """A run can be stopped and started again: a finished part is kept and not computed twice."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        """Open or create a folder. Raises ConfigError if it holds a run with another configuration."""
        self.path = path
        self.config = json.loads(json.dumps(config))
        path.mkdir(parents=True, exist_ok=True)
        file = path / "config.json"
        if file.exists() and json.loads(file.read_text("utf-8")) != self.config:
            raise ConfigError(f"{path} holds a run with another configuration; give another --out")
        file.write_text(json.dumps(self.config, indent=2) + "\n", "utf-8")

    def folder(self, name: str) -> Path:
        """Create a folder inside the run, if it is not there."""
        inside = self.path / name
        inside.mkdir(exist_ok=True)
        return inside

    def write_json(self, name: str, value: Any) -> None:
        (self.path / name).write_text(json.dumps(value, indent=2) + "\n", "utf-8")

    def read_json(self, name: str) -> Any:
        """Read one of the run's files. Raises ConfigError if the run has not come so far."""
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"the run in {self.path} is not finished: {name} is missing") from error

    def write_scores(self, name: str, rows: Iterable[ScoreRow]) -> None:
        """Write scores as CSV, ordered by path."""
        records = [asdict(row) for row in sorted(rows, key=lambda r: r.path)]
        self._write_table(name, list(ScoreRow.__dataclass_fields__), records)

    def write_curve(self, network: str, losses: Sequence[float]) -> None:
        """Put the loss of every step of a network into CURVES, in place of what was there of it."""
        columns = ("network", "step", "loss")
        kept = read_table(self.path / CURVES, columns) if (self.path / CURVES).exists() else []
        rows: list[Mapping[str, object]] = [row for row in kept if row["network"] != network]
        rows += [{"network": network, "step": step, "loss": f"{loss:.6g}"} for step, loss in enumerate(losses, 1)]
        self._write_table(CURVES, columns, rows)

    def _write_table(self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
        part = self.path / f"{name}.part"
        with part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path / name)


def begin_run(out: Path, detector: str, seed: int, recipe: "DataclassInstance", corpus: Path, **more: Any) -> RunFolder:
    """The folder of a training run on a corpus: its folds and media, recipe, seed and `more` are the configuration.

    Raises ConfigError if the corpus lacks one of its tables, or the folder holds another run.
    """
    data = {"folds": table_digest(corpus / "folds.csv"), "media": table_digest(corpus / "manifest.csv")}
    return RunFolder(out, {"detector": detector, "seed": seed, "recipe": asdict(recipe), **data, **more})


def cache_name(path: str) -> str:
    """What an item of a corpus is called in a cache: its file's stem and a digest of its path, for stems may repeat."""
    return f"{Path(path).stem}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def table_digest(path: Path) -> str:
    """Of what a corpus's table says. A manifest names the digests of the media. Raises ConfigError if there is none."""
    try:
        return file_digest(path)
    except OSError as error:
        raise ConfigError(f"training data: {path} cannot be read: {error}") from error


def licence_counts(rows: Iterable[dict[str, str]]) -> dict[str, int]:
    """How many rows of a manifest state each licence, most frequent first."""
    return dict(Counter(row["licence"] for row in rows).most_common())


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file. Raises ConfigError if it is missing or lacks a column."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise ConfigError(f"training data: {path} cannot be read: {error}") from error
    lacking = set(columns) - (rows[0].keys() if rows else set())
    if lacking:
        raise ConfigError(f"training data: {path} has no column {', '.join(sorted(lacking))}")
    return rows
