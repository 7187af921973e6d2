"""The blob store: uploads, bundles and evidence, in a directory or in a bucket that speaks S3.

It holds a random store id that Postgres holds too, so that a process with the wrong volume mounted, another bucket,
or none, refuses to start instead of losing files.
"""

from clipwarden.shared.blobs.local import LocalBlobs
from clipwarden.shared.blobs.store import (
    BUNDLES,
    EVIDENCE,
    PARTIAL,
    UPLOADS,
    BlobStore,
    BlobWriter,
    bundle_folder,
    evidence_folder,
)
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import Settings

__all__ = [
    "BUNDLES",
    "EVIDENCE",
    "PARTIAL",
    "UPLOADS",
    "BlobStore",
    "BlobWriter",
    "LocalBlobs",
    "bundle_folder",
    "evidence_folder",
    "open_blobs",
]


def open_blobs(settings: Settings) -> BlobStore:
    """The blob store that the settings name; nothing is asked of it yet. Raises ConfigError."""
    if not settings.blob_url:
        return LocalBlobs(settings.blobs)
    try:  # only here: a store in a directory does without the package
        from clipwarden.shared.blobs.s3 import S3Blobs
    except ModuleNotFoundError as error:
        raise ConfigError(f"CLIPWARDEN_BLOB_URL needs {error.name}: pip install 'clipwarden[s3]'") from error
    return S3Blobs(settings.blob_url, settings.blob_cache, settings.blob_cache_bytes)
