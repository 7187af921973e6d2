"""Runs a branch's detectors over a clip: one outcome per detector, whatever happens to any of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from clipwarden.models.backbones.memory import is_out_of_memory
from clipwarden.models.detector import Detector, detector_class
from clipwarden.models.weights import verified
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import SENTENCES, FailCode
from clipwarden.shared.contracts import Branch, BranchResult, DetectorOutcome, ManifestDetector, OutcomeStatus
from clipwarden.shared.errors import DetectorError, NotApplicable, WorkerFault

_DEVICE_ERRORS: Final = ("CUDA error", "cuDNN error")
log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A detector in memory, with the manifest's word for it."""

    entry: ManifestDetector
    detector: Detector


def pick_device(setting: str) -> str:
    """The device that a CLIPWARDEN_DEVICE value names; "auto" is CUDA where there is one."""
    if setting != "auto":
        return setting
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_failed(error: Exception) -> bool:
    """Whether a library says that the device is in no state to go on; being out of memory is none."""
    return not is_out_of_memory(error) and any(words in str(error) for words in _DEVICE_ERRORS)


def load(entry: ManifestDetector, device: str) -> Loaded:
    """Load a detector with exactly the weights, runtime and type the entry names. Raises WorkerFault.

    onnxruntime computes on the CPU, in float32, whatever the device: a pipeline is the same on every machine.
    """
    weights, kind = verified(entry.name, entry.weights), detector_class(entry.name)
    if entry.runtime == "torch":
        return Loaded(entry, kind.load(weights, device, entry.dtype))
    if entry.dtype != "float32":
        raise WorkerFault(f"{entry.name} cannot run in onnxruntime in {entry.dtype}, only in float32")
    from clipwarden.models.runtime import hand_over

    detector = kind.load(weights, "cpu")
    hand_over(entry.name, detector)
    return Loaded(entry, detector)


def assess(
    branch: Branch,
    clip: Clip,
    detectors: Sequence[Loaded],
    passing: tuple[type[Exception], ...] = (),
    known: Mapping[str, DetectorOutcome] | None = None,
    tell: Callable[[BranchResult], None] | None = None,
) -> BranchResult:
    """Judge a clip with every detector of a branch (at least one), but those whose outcome is known by name.

    `tell` is given the result so far before each further detector runs. The clip's faults become outcomes. Raises
    WorkerFault for this process's faults, and lets through exceptions of the kinds in `passing` (a time limit, for
    example).
    """
    start = time.perf_counter()
    settled, outcomes = known or {}, list[DetectorOutcome]()
    for one in detectors:
        if (found := settled.get(one.entry.name)) is None:
            if tell and outcomes:
                tell(_result(branch, outcomes, start))
            found = outcome(one, clip, passing)
        outcomes.append(found)
    return _result(branch, outcomes, start)


def _result(branch: Branch, found: Sequence[DetectorOutcome], start: float) -> BranchResult:
    outcomes, elapsed_ms = tuple(found), _milliseconds(start)
    if any(o.status is OutcomeStatus.OK for o in outcomes):
        return BranchResult(branch=branch, status=OutcomeStatus.OK, detectors=outcomes, elapsed_ms=elapsed_ms)
    worst = next((o for o in outcomes if o.status is OutcomeStatus.FAILED), outcomes[0])
    return BranchResult(
        branch=branch,
        status=worst.status,
        code=worst.code,
        message=worst.message,
        detectors=outcomes,
        elapsed_ms=elapsed_ms,
    )


def outcome(loaded: Loaded, clip: Clip, passing: tuple[type[Exception], ...] = ()) -> DetectorOutcome:
    """Judge a clip with one detector. Raises as `assess` does."""
    entry, start = loaded.entry, time.perf_counter()

    def ended(status: OutcomeStatus, code: str | None = None, message: str | None = None) -> DetectorOutcome:
        return DetectorOutcome(
            name=entry.name,
            version=entry.version,
            weights=entry.weights,
            status=status,
            code=code,
            message=message,
            elapsed_ms=_milliseconds(start),
        )

    try:
        evidence = loaded.detector.assess(clip)
    except NotApplicable as skip:
        return ended(OutcomeStatus.SKIPPED, skip.code, str(skip))
    except DetectorError as error:
        return ended(OutcomeStatus.FAILED, error.code, str(error))
    except Exception as error:  # one clip must not stop a queue; the log keeps the traceback
        if isinstance(error, (WorkerFault, *passing)):
            raise
        if device_failed(error):
            raise WorkerFault(f"the device failed: {error}") from error
        code = FailCode.OUT_OF_MEMORY if is_out_of_memory(error) else FailCode.INTERNAL
        log.exception("detector failed", detector=entry.name)
        return ended(OutcomeStatus.FAILED, code, SENTENCES[code])
    return DetectorOutcome(
        name=entry.name,
        version=entry.version,
        weights=entry.weights,
        status=OutcomeStatus.OK,
        evidence=evidence,
        elapsed_ms=_milliseconds(start),
    )


def _milliseconds(start: float) -> int:
    return round((time.perf_counter() - start) * 1000)
