"""Fusion: reads only Postgres, writes the one verdict. The chord's body, its errback and the sweeper all end here."""

from collections.abc import Sequence
from uuid import UUID

from clipwarden.models.fusion.bundle import FusionBundle
from clipwarden.models.fusion.verdict import judge
from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.contracts import BranchResult, Manifest, Verdict
from clipwarden.shared.errors import ElsewherePlease
from clipwarden.shared.logs import logger
from clipwarden.shared.store import Store

log = logger(__name__)


def fuse_analysis(store: Store, blobs: BlobStore, fusion: tuple[FusionBundle, str], analysis_id: UUID) -> bool:
    """Close the analysis if every stage is settled; True if this call did. Raises ElsewherePlease or Unavailable."""
    bundle, digest = fusion

    def decide(manifest: Manifest, results: Sequence[BranchResult], policy: str | None) -> Verdict:
        if manifest.fusion != digest:
            raise ElsewherePlease(f"the pipeline fuses with {manifest.fusion}, here is {digest}")
        return judge(bundle, manifest, results, policy)

    closed = store.fuse(analysis_id, decide)
    if closed:
        blobs.delete_bundle(analysis_id)
        log.info("analysis closed")
    return closed
