"""Ingest reads a file once; every branch reads the bundle, and nothing else opens media."""

import ast
from pathlib import Path

from clipwarden.models.assess import assess, load
from clipwarden.models.faces import FaceDetector
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.run import part, read_clip
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.bundle import BundleFacts, read_part, versions, write_bundle
from clipwarden.shared.contracts import Branch, OutcomeStatus
from clipwarden.shared.ids import new_id
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests import media

ROOT = Path(__file__).parents[3]


def test_branches_judge_the_bundle_after_the_file_is_gone(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "upload.mp4", media.faces(50), media.speech(2))
    faces, manifest = FaceDetector(), local_manifest()
    blobs, analysis_id = LocalBlobs(tmp_path / "blobs"), new_id()
    blobs.set_up("one")
    with Fence(MediaLimits()) as fence:
        read = read_clip(fence, path, manifest, faces)
    clips = {branch: part(read.clip, manifest.ready(branch)) for branch in Branch if branch not in read.skipped}
    facts = BundleFacts(pipeline="test", probe=read.probe, plan=read.plan, versions=versions(faces.VERSION))
    write_bundle(blobs, analysis_id, clips, facts)
    path.unlink()
    statuses = set()
    for branch, clip in clips.items():
        loaded = [load(entry, "cpu") for entry in manifest.ready(branch)]
        direct = assess(branch, clip, loaded)
        bundled = assess(branch, read_part(blobs, analysis_id, branch), loaded)
        assert [d.evidence for d in bundled.detectors] == [d.evidence for d in direct.detectors]
        statuses.add(bundled.status)
    assert OutcomeStatus.OK in statuses


MAY_DECODE = ("shared/media/", "shared/local/sample.py", "models/training/")
IN_PROCESS = (
    "models/run.py",
    "models/reporting.py",
    "models/views.py",
    "models/surface.py",
    "models/clip/predicting.py",
    "models/training/",
)
MAY_ASK_THE_FENCE = ("shared/media/", "workers/process.py", *IN_PROCESS)
DECODERS = {
    *("av.open", "cv2.VideoCapture", "cv2.imread", "cv2.imdecode", "librosa.load"),
    *("moviepy", "imageio", "soundfile", "audioread", "decord", "torchcodec", "torchaudio"),
}


def test_only_the_fence_opens_media_and_only_ingest_asks_it() -> None:
    """By the names in the sources; the laboratory and the maker of the sample stand apart."""
    words = {
        path.relative_to(ROOT).as_posix(): named(path)
        for layer in ("api", "workers", "shared", "models")
        for path in (ROOT / layer).rglob("*.py")
    }
    decoding = {place for place, names in words.items() if names & DECODERS}
    asking = {place for place, names in words.items() if "clipwarden.shared.media.fence" in names}
    using = {place for place, names in words.items() if place.startswith("workers/") and ".fence" in names}
    assert "shared/media/container.py" in decoding
    assert {place for place in decoding if not place.startswith(MAY_DECODE)} == set()
    assert {place for place in asking if not place.startswith(MAY_ASK_THE_FENCE)} == set()
    assert using == {"workers/ingest.py", "workers/process.py", "workers/app.py"}


def named(path: Path) -> set[str]:
    """Modules that a file imports, also by their first names, and attributes with and without their owner's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name for alias in node.names for name in (alias.name, alias.name.partition(".")[0])}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, node.module.partition(".")[0]}
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            found |= {f".{node.attr}", f"{owner}.{node.attr}"}
    return found
