"""The report on a file that is examined in this process, without services."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from clipwarden.models.examined import Examined
from clipwarden.models.pipeline import pipeline_id
from clipwarden.models.run import Laboratory, examine, open_laboratory
from clipwarden.models.weights import bring
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.report.case import Case
from clipwarden.shared.report.page import render


def report_on_file(path: Path, weights: Path | None = None) -> str:
    """Examine a file and write its report. Raises MediaError for what cannot be examined, ConfigError."""
    bring(weights)
    with Fence(MediaLimits()) as fence:
        laboratory = open_laboratory(fence)
        return render(case_of(examine(path, laboratory, show=True), laboratory), datetime.now(UTC))


def case_of(examined: Examined, laboratory: Laboratory) -> Case:
    """Raises ConfigError if the file can no longer be read."""
    manifest = laboratory.manifest
    return Case(
        filename=examined.path.name,
        size_bytes=examined.probe.size_bytes,
        sha256=_sha256(examined.path),
        probe=examined.probe,
        results=examined.results,
        verdict=examined.verdict,
        pipeline=pipeline_id(manifest),
        manifest=manifest,
        fetch=lambda result, detector, name: examined.files.get(f"{result.branch}/{detector}/{name}"),
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
