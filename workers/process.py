"""What one worker process holds: settings, the store, the blob store, and its pool's models, loaded once."""

import os
import socket
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
from clipwarden.shared.exposing import say_ready
from clipwarden.shared.logs import logger
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store

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
            if entries:
                device = pick_device(self.settings.device)
                self.detectors = tuple(load(entry, device) for entry in entries)
                self._test()  # compiles and imports what the first clip would wait for
        lacking = self._lacking()
        if lacking:
            log.error("lacks what the published pipeline names, and takes nothing of it", detectors=lacking)
        else:
            say_ready()
        log.info("worker ready", queue=self.queue, detectors=[loaded.entry.name for loaded in self.detectors])

    def _lacking(self) -> list[str]:
        """Detectors of this queue in the published pipeline whose weights are not here."""
        try:
            published = self.store.manifest(self.store.current_pipeline() or "")
        except ValidationError:
            return ["the pipeline is of another version"]
        branch = next((branch for branch in Branch if branch.value == self.queue.value), None)
        if published is None or branch is None:
            return []
        here = {loaded.entry.name for loaded in self.detectors}
        return [entry.name for entry in published.ready(branch) if entry.name not in here]

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
