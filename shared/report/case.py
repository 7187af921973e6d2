"""What a report is made of, wherever the file was examined."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from clipwarden.shared.contracts import BranchResult, Manifest, MediaProbe, Verdict

Fetch = Callable[[BranchResult, str, str], bytes | None]
"""Reads a file of evidence: a branch's result, the detector, the name. None if it is no longer kept."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody said of the verdict."""

    label: str
    category: str
    comment: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Passage:
    """How an analysis went through the system; a file that was examined in one process has none.

    `state` and `sentence` say how it ended, the latter only where it did so without a verdict.
    """

    id: UUID
    state: str
    sentence: str | None
    created_at: datetime
    finished_at: datetime | None
    from_cache: bool = False
    rerun_of: UUID | None = None
    tag: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One file, what was found in it, and what judged it. Names, tags and comments are anybody's words."""

    filename: str
    size_bytes: int
    sha256: str
    probe: MediaProbe | None
    results: tuple[BranchResult, ...]
    verdict: Verdict | None
    pipeline: str
    manifest: Manifest
    fetch: Fetch
    passage: Passage | None = None
    opinions: tuple[Opinion, ...] = ()
