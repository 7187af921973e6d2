"""What one worker process holds: settings, the store, the blob store, and its pool's models, loaded once."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import ValidationError

from clipwarden.models.assess import Loaded, load, pick_device
from clipwarden.models.catalogue import GATE
from clipwarden.models.faces import FaceDetector
from clipwarden.models.fusion.bundle import FusionBundle, bundle_path, read_bundle
from clipwarden.models.pipeline import local_detector, local_detectors
from clipwarden.models.weights import bring
from clipwarden.shared.blobs import BlobStore, open_blobs
from clipwarden.shared.contracts import Branch, BranchResult, OutcomeStatus
from clipwarden.shared.errors import Unavailable, WorkerFault
from clipwarden.shared.exposing import say_lacking, say_ready
from clipwarden.shared.logs import logger
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.metrics import WORKER_LACKS
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from clipwarden.workers.faults import STARTED_WITH

FAILURES_IN_A_ROW = 3
log = logger(__name__)


@dataclass
class WorkerProcess:
    """Everything a task may use. Models are loaded by `warm`, before the first task."""

    settings: Settings
    queue: Queue
    detectors: tuple[Loaded, ...] = field(default=(), init=False)
    gate: Loaded | None = field(default=None, init=False)
    failures: int = field(default=0, init=False)
    lacking: list[str] = field(default_factory=list, init=False)

    @cached_property
    def name(self) -> str:
        return f"{self.queue}@{socket.gethostname()}:{os.getpid()}"

    @cached_property
    def store(self) -> Store:
        return Store(self.settings.database_url, pool_size=1, name=self.name)

    @cached_property
    def blobs(self) -> BlobStore:
        return open_blobs(self.settings)

    @cached_property
    def faces(self) -> FaceDetector:
        return FaceDetector()

    @cached_property
    def fence(self) -> Fence:
        s = self.settings
        return Fence(
            MediaLimits(
                max_duration_s=s.max_duration_s,
                max_pixels=s.max_pixels,
                max_frames=s.max_frames,
                memory_bytes=s.decode_memory_bytes,
                cpu_s=s.decode_cpu_s,
            )
        )

    @cached_property
    def fusion(self) -> tuple[FusionBundle, str]:
        """The fusion bundle installed here and its digest."""
        return read_bundle(bundle_path())

    def warm(self) -> None:
        """Check schema and blobs, load what the queue's tasks need. Raises WorkerFault, ConfigError or Unavailable."""
        self.store.check_schema()
        self.blobs.check(self.store.store_id())
        bring(self.settings.weights)
        if self.queue is Queue.INGEST:
            _ = self.faces, self.fence
            gate = local_detector(GATE)
            self.gate = load(gate, "cpu") if gate else None
        elif self.queue is Queue.FUSION:
            _ = self.fusion
        else:
            entries = local_detectors(Branch(self.queue))
            if lost := set(os.environ.get(STARTED_WITH, "").split()) - {entry.name for entry in entries}:
                raise WorkerFault(f"the weights of {', '.join(sorted(lost))} were here when this worker started")
            if entries:
                device = pick_device(self.settings.device)
                self.detectors = tuple(load(entry, device) for entry in entries)
                self._test()  # compiles and imports what the first clip would wait for
        self.look()
        say_ready()  # whatever it lacks: older pipelines may need what it has
        log.info("worker ready", queue=self.queue, detectors=[loaded.entry.name for loaded in self.detectors])

    def look(self) -> None:
        """Look what the published pipeline names that is not here, and say so. Raises Unavailable."""
        lacking = self._lacking()
        if lacking and lacking != self.lacking:
            log.error("lacks what the published pipeline names, and takes nothing of it", lacking=lacking)
        self.lacking = lacking
        say_lacking(lacking)
        WORKER_LACKS.labels(self.queue).set(len(lacking))

    def look_again(self) -> None:
        """After work that was another's, and after any work while something lacks: pipelines are published any time."""
        with suppress(Unavailable):
            self.look()

    def _lacking(self) -> list[str]:
        """What the published pipeline has for this queue that is not the same here; detectors by name."""
        try:
            published = self.store.manifest(self.store.current_pipeline() or "")
        except ValidationError:
            return ["the pipeline is of another version"]
        if published is None:
            return []
        if self.queue is Queue.INGEST:
            return [] if published.faces == self.faces.VERSION else [f"faces {published.faces}"]
        if self.queue is Queue.FUSION:
            return [] if published.fusion == self.fusion[1] else [f"fusion {published.fusion}"]
        wanted, here = published.ready(Branch(self.queue)), tuple(loaded.entry for loaded in self.detectors)
        if wanted == here:
            return []
        return sorted({e.name for e in (*wanted, *here) if (e in wanted) != (e in here)}) or ["their order"]

    def weigh(self, result: BranchResult) -> None:
        """Count failures in a row; after a few, test this machine. Raises WorkerFault if it is the sick one."""
        self.failures = self.failures + 1 if result.status is OutcomeStatus.FAILED else 0
        if self.failures >= FAILURES_IN_A_ROW:
            log.warning("testing this worker", failures=self.failures)
            self._test()
            self.failures = 0

    def _test(self) -> None:
        from clipwarden.models.selftest import self_test

        self_test(Branch(self.queue), self.detectors)
