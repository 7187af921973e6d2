"""Which branches need not run, because an earlier analysis of the same content found what they would find."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from clipwarden.shared.contracts import Branch, Manifest, MediaProbe, Needs
from clipwarden.shared.store import Earlier


@dataclass(frozen=True, slots=True)
class Reused:
    """The analysis that each such branch is taken over from; `probe` is the file's if no branch is left to run."""

    sources: dict[Branch, UUID] = field(default_factory=dict)
    probe: MediaProbe | None = None


def reused(asked: Manifest, earlier: Sequence[Earlier]) -> Reused:
    """Branches whose detectors are the same as before, with the same weights, and were given the same to look at.

    Faces are followed through the frames that any detector wants, so what a detector sees is the same only if all of
    them want the same. The latest analysis that knows a branch is its source.
    """
    ready = [branch for branch in Branch if asked.ready(branch)]
    alike = [e for e in earlier if e.manifest.faces == asked.faces and _needs(e.manifest) == _needs(asked)]
    sources = {
        branch: e.analysis_id
        for e in reversed(alike)
        for branch in ready
        if branch in e.branches and e.manifest.ready(branch) == asked.ready(branch)
    }
    nothing_left = bool(ready) and len(sources) == len(ready)
    return Reused(sources, alike[0].probe if nothing_left else None)


def _needs(manifest: Manifest) -> frozenset[Needs]:
    return frozenset(d.needs for branch in Branch for d in manifest.ready(branch))
