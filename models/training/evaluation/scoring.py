"""Runs the installed pipeline over the items of a manifest, each file once, and writes what it says to the ledger."""

import errno
import math
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Final

from clipwarden.models.run import Laboratory, judged, open_laboratory, read_clip
from clipwarden.models.training.evaluation import quality
from clipwarden.models.training.evaluation.ledger import (
    EXAMINED,
    MISSING,
    UNREADABLE,
    Record,
    features_of,
    key_of,
    said_of,
)
from clipwarden.models.training.evaluation.manifest import Item
from clipwarden.models.weights import file_digest
from clipwarden.shared.contracts import BranchResult
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

_WAITING_PER_PROCESS: Final = 4
_laboratory: list[Laboratory] = []


def score(path: Path, item: Item, laboratory: Laboratory) -> Record:
    """One row of the ledger, but for its key. A file's own faults become its status; WorkerFault passes."""
    record = {**said_of(item), "sha256": item.sha256}
    try:
        record["sha256"] = _digest(path)
        read = read_clip(laboratory.fence, path, laboratory.manifest, laboratory.faces)
        examined = judged(path, read, laboratory)
    except MediaError as error:
        return {**record, "status": str(error.code), "message": str(error)}
    except OSError as error:
        code = MISSING if isinstance(error, FileNotFoundError) else UNREADABLE
        return {**record, "status": code, "message": error.strerror or str(error)}
    verdict, probe = examined.verdict, examined.probe
    numbers: dict[str, float | str] = {
        "probability": math.nan if verdict.probability is None else verdict.probability,
        "size_bytes": probe.size_bytes,
        **quality.container(probe),
        **quality.seen(read.clip),
    }
    names = {"status": EXAMINED, "verdict": verdict.label.value, "head": verdict.head or "", "kind": probe.kind.value}
    found = {name: _text(value) for name, value in numbers.items()} | names
    if not record["codec"]:
        record["codec"] = probe.video_codec or probe.audio_codec or ""
    return record | found | _outcomes(examined.results, laboratory)


def _digest(path: Path) -> str:
    """Raises OSError, too, for a path with a NUL in it, which no file can have."""
    try:
        return file_digest(path).removeprefix("sha256:")
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error


def _outcomes(results: Sequence[BranchResult], laboratory: Laboratory) -> Record:
    record: Record = {}
    for result in results:
        for entry in laboratory.manifest.ready(result.branch):
            record[f"{entry.name}:status"] = str(result.code)
        for outcome in result.detectors:
            record[f"{outcome.name}:status"] = EXAMINED if outcome.code is None else str(outcome.code)
            if outcome.evidence is not None:
                record[f"{outcome.name}:score"] = _text(outcome.evidence.score)
                features = outcome.evidence.features
                record |= {name: _text(features[name]) for name in features_of(outcome.name) if name in features}
    return record


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else repr(float(value)) if value != int(value) else str(int(value))


def score_all(
    work: Iterable[tuple[Path, Item]], laboratory: Laboratory, jobs: int, only: frozenset[str]
) -> Iterator[Record]:
    """Rows in the order of the work; with more than one job, other processes load the same pipeline."""
    if jobs == 1:
        yield from (score(path, item, laboratory) for path, item in work)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_open, initargs=(only, jobs)) as pool:
        waiting: deque[Future[Record]] = deque()
        try:
            for path, item in work:
                waiting.append(pool.submit(_score_there, path, item))
                if len(waiting) >= jobs * _WAITING_PER_PROCESS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _open(only: frozenset[str], jobs: int) -> None:
    import torch

    torch.set_num_threads(max(torch.get_num_threads() // jobs, 1))
    _laboratory.append(open_laboratory(Fence(MediaLimits()), only))


def _score_there(path: Path, item: Item) -> Record:
    return score(path, item, _laboratory[0])


def by_key(work: Iterable[tuple[Path, Item]]) -> dict[str, tuple[Path, Item]]:
    """The work under the keys of its rows, in its order."""
    return {key_of(item, path): (path, item) for path, item in work}
