"""What ingest costs, clip by clip: CPU against a bare decode of the same file, memory, and the bundle.

Ingest and the bare decode both have one thread. "Without faces" means that no face is looked for and no frame is
spared: each view of a face or a mouth is replaced by one of whole frames, as many and of the same size and kernel.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import av
import cv2

from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.faces import FaceDetector
from clipwarden.models.plan import plan
from clipwarden.models.run import Read, part, read_clip
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.bundle import BundleFacts, versions, write_bundle
from clipwarden.shared.contracts import Branch, DetectorState, Manifest, ManifestDetector
from clipwarden.shared.ids import new_id
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MEBIBYTE, MediaLimits
from tests.bench.clips import CLIPS, FILM, TWO_HOURS, made
from tests.bench.figures import Bench, Figure, cpu_s, figure, spent_s

ONE_THREAD = MediaLimits(threads=1)
LOOKS = 2
SEEKS_SAMPLED = 16
WATCH_EVERY_S = 0.05
_ANY = f"sha256:{'0' * 64}"


def full_manifest() -> Manifest:
    """A pipeline in which every detector of the table is ready, as far as what they need of a clip goes.

    Of LipFD's two profiles, of which a pipeline has one, the original.
    """
    specs = [detector_class(name).spec for name in DETECTORS if name != "lipfd_fixed"]
    ready = [
        ManifestDetector(
            name=spec.name,
            version=spec.version,
            branch=spec.branch,
            state=DetectorState.READY,
            weights=_ANY,
            needs=spec.needs,
        )
        for spec in specs
    ]
    return Manifest(detectors=tuple(ready), faces=FaceDetector.VERSION, fusion=_ANY)


def faceless(manifest: Manifest) -> Manifest:
    """The manifest with whole frames instead of faces and mouths."""
    return manifest.model_copy(update={"detectors": tuple(_faceless(one) for one in manifest.detectors)})


def _faceless(detector: ManifestDetector) -> ManifestDetector:
    if detector.needs.frames is None:
        return detector
    whole = detector.needs.frames.model_copy(update={"view": "frame", "margin": 0.0, "people": 1})
    return detector.model_copy(update={"needs": detector.needs.model_copy(update={"frames": whole})})


@figure
def clip_cost(bench: Bench) -> Iterator[Figure]:
    """CPU of ingest in bare decodes of the same file. The fence's own start is left out: a worker pays it once.

    Beside it, the seeds' way of reading.
    """
    faces = FaceDetector()
    plans = {
        "default plan, no faces": (faceless(bench.manifest), 1.4),
        "full plan, no faces": (faceless(full_manifest()), 2.0),
        "full plan": (full_manifest(), 2.5),
    }
    start_s = cpu_s(partial(start, bench.path))
    for recipe, path in made(CLIPS).items():
        looks = LOOKS if recipe is FILM else 1
        bare_s = cpu_s(partial(bare_decode, path), looks)
        for name, (manifest, limit) in plans.items():
            cost_s = cpu_s(partial(ingest, path, manifest, faces, bench.path), looks) - start_s
            bound = limit if recipe is FILM else None
            yield Figure(f"{recipe.name}: {name}", cost_s / bare_s, "x decode", limit=bound)
        if recipe is FILM:
            yield Figure(f"{recipe.name}: seeking, full plan", seeks_s(path) / bare_s, "x decode")


def bare_decode(path: Path) -> None:
    """Every picture decoded on one thread, none looked at."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        for _ in container.decode(video=0):
            pass


def start(warm_up: Path) -> None:
    """A fence that has looked at one file."""
    with Fence(ONE_THREAD) as fence:
        fence.probe(warm_up)


def ingest(path: Path, manifest: Manifest, faces: FaceDetector, warm_up: Path) -> None:
    """What the worker does to a file, after what `start` does."""
    with Fence(ONE_THREAD) as fence:
        fence.probe(warm_up)
        read_clip(fence, path, manifest, faces)


def seeks_s(path: Path) -> float:
    """CPU of the seeds' way with the frames of the full plan: `CAP_PROP_POS_FRAMES` per frame, once per detector.

    Every sixteenth seek is made and the sum taken sixteen times, because all of them take minutes.
    """
    with Fence(ONE_THREAD) as fence:
        sampling, _ = plan(fence.probe(path), full_manifest())
    before = spent_s()
    for view in sampling.views:
        read_by_seeking(path, view.frame_indices[SEEKS_SAMPLED // 2 :: SEEKS_SAMPLED], view.need.size_px)
    return (spent_s() - before) * SEEKS_SAMPLED


def read_by_seeking(path: Path, indices: Sequence[int], size_px: int) -> None:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    for index in indices:
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        there, picture = capture.read()
        assert there
        cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), (size_px, size_px))
    capture.release()


@figure
def clip_footprint(bench: Bench) -> Iterator[Figure]:
    """Most memory of a process that ingests, its zygote and the decoder together; and the bundles it wrote."""
    plans = {"full plan": full_manifest(), "default plan": bench.manifest}
    for recipe, path in made([*CLIPS, TWO_HOURS]).items():
        peak_bytes, wrote = footprint(path, list(plans.values()))
        yield Figure(f"{recipe.name}: peak memory", peak_bytes / MEBIBYTE, "MiB", limit=700)
        for name, said in zip(plans, wrote, strict=True):
            bound = 70.0 if (recipe, name) == (FILM, "full plan") else None
            yield Figure(f"{recipe.name}: bundle, {name}", said.size_bytes / 1e6, "MB", limit=bound)
            yield Figure(f"{recipe.name}: writing it, {name}", 1000 * said.elapsed_s, "ms")


@dataclass(frozen=True, slots=True)
class Written:
    """What one bundle took."""

    size_bytes: int
    elapsed_s: float


def footprint(path: Path, manifests: Sequence[Manifest]) -> tuple[int, list[Written]]:
    """Peak bytes of a fresh process that ingests the file for each pipeline in turn, and what it says of the bundles.

    The process has the libraries that ingest needs, and none of the detectors'.
    """
    command = [sys.executable, "-m", "tests.bench.media_bench", path, *(m.model_dump_json() for m in manifests)]
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=said) as child:
        peak = 0
        while child.poll() is None:
            peak = max(peak, proportional_bytes(child.pid))
            time.sleep(WATCH_EVERY_S)
        assert child.returncode == 0
        said.seek(0)
        return peak, [Written(**line) for line in map(json.loads, said)]


def proportional_bytes(pid: int) -> int:
    """Memory of a process and all below it, shared pages counted once (Linux: PSS); 0 for one that is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
        below = [
            int(n) for task in Path(f"/proc/{pid}/task").iterdir() for n in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    mine = next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return mine + sum(map(proportional_bytes, below))


def main(path: Path, manifests: Sequence[Manifest]) -> None:
    """The process that is watched: a line of JSON for each bundle."""
    faces = FaceDetector()
    with Fence(MediaLimits()) as fence, tempfile.TemporaryDirectory(prefix="clipwarden-bench-") as folder:
        blobs = LocalBlobs(Path(folder))
        blobs.set_up("bench")
        for manifest in manifests:
            wrote = bundled(read_clip(fence, path, manifest, faces), manifest, blobs)
            print(json.dumps(asdict(wrote)), flush=True)


def bundled(read: Read, manifest: Manifest, blobs: LocalBlobs) -> Written:
    """Write the bundle as the worker does."""
    clips = {branch: part(read.clip, manifest.ready(branch)) for branch in Branch if branch not in read.skipped}
    facts = BundleFacts(pipeline=_ANY, probe=read.probe, plan=read.plan, versions=versions(manifest.faces))
    started = time.perf_counter()
    sizes = write_bundle(blobs, new_id(), clips, facts)
    return Written(sum(sizes.values()), time.perf_counter() - started)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Manifest.model_validate_json(text) for text in sys.argv[2:]])
