"""scores.csv: one row per examined file, appended as it comes and kept across restarts; and reading it back.

A row is known by the digest of its path, label, size and time of change, and of the pipeline: other labels, exchanged
files and other weights are scored anew, and so is a file that could not be opened. What else the manifest says is taken
from the manifest as it is now.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.training.evaluation.figures import Bools, Floats
from clipwarden.models.training.evaluation.manifest import Duplicate, Item, is_fake
from clipwarden.models.training.evaluation.quality import CODECS, CONTAINER, SEEN
from clipwarden.shared.contracts import Branch, Manifest
from clipwarden.shared.errors import ConfigError

OF_ITEM: Final = ("path", "label", "group", "generator", "source", "identity", "matched_group", "codec", "channel")
TEXTS: Final = ("key", "pipeline", *OF_ITEM, "sha256", "status", "message", "verdict", "head", "kind", *CODECS)
NUMBERS: Final = ("probability", "size_bytes", *CONTAINER, *SEEN)
EXAMINED: Final = "ok"
MISSING: Final = "missing"
UNREADABLE: Final = "unreadable"
"""Status of a file with results, of one that is not there, of one that the system does not let us open; any other is
the media's own code of why there are none.
"""
_SYNC_EVERY: Final = 20

Record = dict[str, str]


def pipeline_digest(manifest: Manifest) -> str:
    """SHA-256 over what can change a score: the ready detectors with weights and needs, the faces, the fusion."""
    ready = [d.model_dump(mode="json") for branch in Branch for d in manifest.ready(branch)]
    text = json.dumps([ready, manifest.faces, manifest.fusion], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def columns(detectors: Sequence[str]) -> tuple[str, ...]:
    """Headings of scores.csv for a pipeline with these detectors."""
    own = [(f"{name}:status", f"{name}:score", *features_of(name)) for name in detectors]
    return (*TEXTS, *NUMBERS, *(column for some in own for column in some))


def features_of(detector: str) -> tuple[str, ...]:
    return tuple(name for name, feature in CATALOGUE.items() if feature.detector == detector)


def key_of(item: Item, path: Path) -> str:
    """What the row of an item is known by, with its file as it is now."""
    try:
        found = path.stat()
        state = f"{found.st_size}/{found.st_mtime_ns}"
    except (OSError, ValueError):
        state = ""
    text = "\0".join((item.path, "fake" if item.fake else "real", state))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def said_of(item: Item) -> Record:
    """The columns of OF_ITEM."""
    said = {name: str(getattr(item, name)) for name in OF_ITEM if name != "label"}
    return {**said, "label": "fake" if item.fake else "real"}


class Ledger:
    """An open scores.csv. Rows are on disk soon after they are added; a row cut short by a crash is dropped."""

    def __init__(self, path: Path, detectors: Sequence[str], pipeline: str) -> None:
        """Open or create. Raises ConfigError for scores of another pipeline, or while another run writes."""
        self.path, self.pipeline, self.columns = path, pipeline, columns(detectors)
        self.keys: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8", newline="")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_up()
        except BlockingIOError as error:
            self._stream.close()
            raise ConfigError(f"another run is writing {path}; wait for it or give another --out") from error
        except ConfigError:
            self._stream.close()
            raise
        self._writer = csv.DictWriter(self._stream, self.columns, restval="")
        if not path.stat().st_size:
            self._writer.writeheader()
        self._unsynced = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync()
        self._stream.close()

    def add(self, record: Record) -> None:
        self._writer.writerow({**record, "pipeline": self.pipeline})
        self.keys.add(record["key"])
        self._unsynced += 1
        if self._unsynced >= _SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._unsynced = 0

    def _take_up(self) -> None:
        with self.path.open("r+b") as stream:
            stream.truncate(_whole_rows(stream.read()))
        with self.path.open(encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text)
            if reader.fieldnames is None:
                return
            for row in reader:
                if tuple(reader.fieldnames) != self.columns or row["pipeline"] != self.pipeline:
                    raise ConfigError(f"{self.path} holds scores of another pipeline; give another --out")
                if row["status"] != UNREADABLE:
                    self.keys.add(row["key"])


def _whole_rows(content: bytes) -> int:
    """Where the last row ends that was written to its end."""
    if content.endswith(b"\n") or not content:
        return len(content)
    return content.rfind(b"\n") + 1


def keep_only(path: Path, items: Mapping[str, Item]) -> None:
    """Rewrite a ledger with the rows of these keys alone, in their order, each once, and with what the items now say.

    The old ledger or the new one is seen.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader)
        rows = {row[0]: row for row in reader if row[0] in items}
    made = io.StringIO(newline="")
    writer = csv.DictWriter(made, header)
    writer.writeheader()
    for key in (key for key in items if key in rows):
        row = dict(zip(header, rows[key], strict=True))
        probed = next((row[name] for name in CODECS if row[name]), "")
        writer.writerow({**row, **said_of(items[key]), "codec": items[key].codec or probed})
    part = path.with_name(f".{path.name}.part")
    part.write_text(made.getvalue(), "utf-8", newline="")
    part.replace(path)


@dataclass(frozen=True, slots=True)
class Scores:
    """A scores file by column. text: (N,) strings; number: (N,) float64, NaN where there is none.

    status: detector → (N,) "ok", or the code of why it has no score; features are numbers under their own names.
    """

    fake: Bools
    text: Mapping[str, NDArray[np.str_]]
    number: Mapping[str, Floats]
    status: Mapping[str, NDArray[np.str_]]

    def __len__(self) -> int:
        return len(self.fake)

    @property
    def detectors(self) -> tuple[str, ...]:
        return tuple(self.status)

    @property
    def examined(self) -> Bools:
        return np.asarray(self.text["status"] == EXAMINED)

    def score(self, detector: str) -> Floats:
        return self.number[f"{detector}:score"]

    def rows(self, chosen: Bools) -> "Scores":
        def of(some: Mapping[str, Any]) -> dict[str, Any]:
            return {name: values[chosen] for name, values in some.items()}

        return Scores(self.fake[chosen], of(self.text), of(self.number), of(self.status))


def read_scores(path: Path) -> Scores:
    """Read a scores file, ours or any CSV with path, label and a probability or `DETECTOR:score` columns.

    Raises ConfigError for what is missing or cannot be read, naming the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            rows = [row for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"scores {path} cannot be read: {error}") from error
    scored = [name.removesuffix(":score") for name in header if name.endswith(":score")]
    if not {"path", "label"} <= set(header) or not ({"probability"} & set(header) or scored):
        raise ConfigError(f"scores {path} need the columns path, label, and probability or DETECTOR:score")
    if short := next((k for k, row in enumerate(rows, 2) if len(row) != len(header)), None):
        raise ConfigError(f"scores {path}, line {short}: {len(header)} entries are expected")
    return _scores(
        path, dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True)), scored
    )


def _scores(path: Path, raw: Mapping[str, Sequence[str]], detectors: Sequence[str]) -> Scores:
    n = len(raw["path"])
    labels = [is_fake(label) for label in raw["label"]]
    if None in labels:
        k = labels.index(None)
        raise ConfigError(f"scores {path}, line {k + 2} ({raw['path'][k]}): label {raw['label'][k]!r} is not known")
    wanted = [*NUMBERS, *(f"{d}:score" for d in detectors), *(f for d in detectors for f in features_of(d))]
    number = {name: _numbers(path, name, raw.get(name, [""] * n)) for name in wanted}
    for name in ("probability", *(f"{d}:score" for d in detectors)):
        _check_probability(path, name, number[name])
    text = {name: np.array(raw.get(name, [""] * n), dtype=np.str_) for name in TEXTS}
    if "group" not in raw:
        text["group"] = text["path"]
    if "status" not in raw:
        text["status"] = np.full(n, EXAMINED)
    if "verdict" not in raw:
        text["verdict"] = _by_half(number["probability"])
    status = {d: np.array(raw.get(f"{d}:status", _present(number[f"{d}:score"])), dtype=np.str_) for d in detectors}
    return Scores(np.array(labels, dtype=bool), text, number, status)


def _numbers(path: Path, name: str, texts: Iterable[str]) -> Floats:
    convert: Callable[[str], float] = lambda t: float(t) if t else float("nan")  # noqa: E731 - one expression, used once
    try:
        return np.array([convert(t) for t in texts], dtype=np.float64)
    except ValueError as error:
        raise ConfigError(f"scores {path}: column {name} holds something other than numbers: {error}") from error


def _check_probability(path: Path, name: str, value: Floats) -> None:
    wrong = np.flatnonzero((value < 0) | (value > 1))
    if len(wrong):
        k = int(wrong[0])
        raise ConfigError(f"scores {path}, line {k + 2}: {name} is {value[k]:g}, which does not lie between 0 and 1")


def _present(score: Floats) -> list[str]:
    return ["" if absent else EXAMINED for absent in np.isnan(score)]


def _by_half(probability: Floats) -> NDArray[np.str_]:
    called = np.where(probability >= 0.5, "fake", "real")
    return np.where(np.isnan(probability), "", called)


def once_by_content(scores: Scores, lines: Mapping[str, int] | None = None) -> tuple[Scores, list[Duplicate]]:
    """The rows without those whose file has the bytes of an earlier examined one, and these.

    `lines` says where the manifest names each path; without it they are the lines of the scores file.
    """
    kept = np.ones(len(scores), np.bool_)
    again: list[Duplicate] = []
    seen: dict[str, Item] = {}
    for k in np.flatnonzero(scores.examined & (scores.text["sha256"] != "")).tolist():
        path, fake = str(scores.text["path"][k]), bool(scores.fake[k])
        item = Item((lines or {}).get(path, k + 2), path, fake, str(scores.text["group"][k]))
        first = seen.setdefault(str(scores.text["sha256"][k]), item)
        if first is not item:
            kept[k] = False
            again.append(Duplicate(item, first, first.fake != fake))
    return scores.rows(kept), again


def branches_of(detectors: Sequence[str]) -> dict[str, Branch]:
    """The branch of each detector that the catalogue knows."""
    known = {feature.detector: feature.branch for feature in CATALOGUE.values()}
    return {name: known[name] for name in detectors if name in known}
