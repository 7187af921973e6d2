"""The pipeline that this installation holds: its detectors, faces and fusion, under one digest."""

import hashlib
import json
from collections.abc import Collection

from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.fusion.bundle import bundle_path, read_bundle
from clipwarden.models.weights import WeightsEntry, state_of, weights_table
from clipwarden.shared.contracts import Branch, DetectorState, Manifest, ManifestDetector


def local_manifest(named: Collection[str] = ()) -> Manifest:
    """Everything installed here; of detectors on standby only the `named` are ready. Imports what is ready."""
    from clipwarden.models.faces import FaceDetector

    bundle, digest = read_bundle(bundle_path())
    return Manifest(
        detectors=tuple(_entry(name, entry, name in named) for name, entry in weights_table().items()),
        faces=FaceDetector.VERSION,
        fusion=digest,
        policies=(bundle.policy, *sorted(set(bundle.policies) - {bundle.policy})),
    )


def local_detectors(branch: Branch) -> tuple[ManifestDetector, ...]:
    """The ready detectors of one branch; imports only that branch's libraries."""
    entries = (_entry(n, e) for n, e in weights_table().items() if e.branch is branch)
    return tuple(d for d in entries if d.state is DetectorState.READY)


def local_detector(name: str) -> ManifestDetector | None:
    """One detector, None if it is not ready here; imports its libraries only if it is."""
    entry = _entry(name, weights_table()[name])
    return entry if entry.state is DetectorState.READY else None


def pipeline_id(manifest: Manifest) -> str:
    """Digest of the manifest in canonical JSON."""
    canonical = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _entry(name: str, entry: WeightsEntry, named: bool = False) -> ManifestDetector:
    state = state_of(entry) if name in DETECTORS else DetectorState.NO_WEIGHTS
    if state is not DetectorState.READY and not (named and state is DetectorState.DISABLED):
        return ManifestDetector(name=name, version=entry.version, branch=entry.branch, state=state)
    spec = detector_class(name).spec
    return ManifestDetector(
        name=name,
        version=spec.version,
        branch=spec.branch,
        state=DetectorState.READY,
        weights=entry.sha256,
        runtime=entry.runtime,
        dtype=entry.dtype,
        needs=spec.needs,
    )
