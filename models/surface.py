"""The Python surface of the detectors' own documents: `load_model("SIGLIP-LSTM", version="V4").predict(path)`.

For notebooks and scripts: names, calls and results are those of the SIGLIP-LSTM and LipFD documents, with no service
running. One file at a time, read behind the fence as everywhere. A model joins by its line in MODELS.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from clipwarden.models.assess import pick_device
from clipwarden.models.detector import DETECTORS, Detector, detector_class
from clipwarden.models.faces import FaceDetector
from clipwarden.models.fusion.bundle import bundle_path, read_bundle
from clipwarden.models.hub.foreign import readable
from clipwarden.models.run import read_clip
from clipwarden.models.weights import WeightFile, WeightsEntry, file_digest, verified, weights_path, weights_table
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import DetectorState, Manifest, ManifestDetector
from clipwarden.shared.errors import ClipwardenError, ConfigError, MediaError, NotApplicable, WorkerFault
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

NO_AUDIO_TRACK: Final = "no audio track"
"""What the LipFD document's example looks for in the error of a video without sound."""

Result = dict[str, Any]


class MediaProcessingError(ClipwardenError):
    """The file cannot be analysed by this model; `code` is the reject or skip code that says why."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{NO_AUDIO_TRACK}: {message}" if code == SkipCode.NO_AUDIO else message)


@dataclass(frozen=True, slots=True)
class Known:
    """A model of the documents: our detector for it, its versions, and its result.

    `result` is given the detector, the clip prepared for it, and when reading began, by `time.perf_counter`.
    """

    detector: str
    versions: tuple[str, ...]
    result: Callable[[Any, Clip, float], Result]


class Model:
    """One detector, loaded, that takes files. `predict` and `analyze` are one thing under the two documents' names.

    Not for several threads at once. The decoder's process ends with the model, at the latest with the program.
    """

    def __init__(self, known: Known, detector: Detector, digest: str) -> None:
        self._known, self._detector = known, detector
        self._manifest, self._faces = _manifest(detector, digest), FaceDetector()
        self._fence = Fence(MediaLimits())
        self.close = weakref.finalize(self, self._fence.close)
        """Ends the decoder's process, which is otherwise kept for the next file."""

    def eval(self) -> Self:
        """The model itself, which is always ready to judge."""
        return self

    def predict(self, video_path: Path | str) -> Result:
        """Judge a file; the result is that of the model's document.

        Raises MediaProcessingError if the file cannot be analysed or holds nothing for this model to judge, OSError if
        it cannot be opened.
        """
        started = time.perf_counter()
        try:
            return self._known.result(self._detector, self._read(Path(video_path)), started)
        except (MediaError, NotApplicable) as error:
            raise MediaProcessingError(error.code, str(error)) from error

    def analyze(self, media_path: Path | str) -> Result:
        """See `predict`."""
        return self.predict(media_path)

    def _read(self, path: Path) -> Clip:
        read, branch = read_clip(self._fence, path, self._manifest, self._faces), self._detector.spec.branch
        if branch in read.skipped:
            raise NotApplicable(read.skipped[branch])
        return read.clip


def load_model(name: str, version: str | None = None, weights: Path | str | None = None, device: str = "auto") -> Model:
    """A model of the documents by its name in them; "LIPFD-V1" is version V1 of LIPFD.

    `weights` names a checkpoint of the original's layout or of ours; without it the installed weights are taken, and
    without `version` the one that these are of. Raises ConfigError for an unknown name or version, and for weights that
    are missing, unreadable or of another network.
    """
    family, version = _family(name, version)
    known = MODELS[family]
    entry = weights_table()[known.detector]
    if known.detector not in DETECTORS:
        raise ConfigError(f"{family} cannot run: {entry.obtain}")
    try:
        with _weights(known, entry, version, weights) as found:
            detector = detector_class(known.detector).load(found, pick_device(device))
    except WorkerFault as error:
        raise ConfigError(f"{family} cannot be loaded: {error}") from error
    return Model(known, detector, found.digest)


def _family(name: str, version: str | None) -> tuple[str, str | None]:
    """The name in MODELS and the version, both checked; the version is given, ends the name, or is left open."""
    stem, _, tail = name.rpartition("-")
    family, named = (stem, tail) if stem in MODELS else (name, None)
    if family not in MODELS:
        raise ConfigError(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    given = [v for v in (version, named) if v is not None]
    if wrong := set(given) - set(MODELS[family].versions):
        has = ", ".join(MODELS[family].versions)
        raise ConfigError(f"{family} has no version {', '.join(sorted(wrong))}; there are {has}")
    if len(set(given)) > 1:
        raise ConfigError(f"{name} is not version {version}")
    return family, version or named


@contextmanager
def _weights(known: Known, entry: WeightsEntry, version: str | None, path: Path | str | None) -> Iterator[WeightFile]:
    """The file that was named, or the installed one, and the version to hold it to. Raises ConfigError, WorkerFault."""
    held = {"version": version} if version and len(known.versions) > 1 else {}
    if path is not None:
        with readable(Path(path), entry.companions) as file:
            yield WeightFile(file, file_digest(Path(path)), {**entry.options, **held})
    elif weights_path(entry) is None:
        raise ConfigError(f"no weights of {known.detector} are installed: name a file by weights=PATH. {entry.obtain}")
    else:
        found = verified(known.detector)
        yield replace(found, options={**found.options, **held})


def _manifest(detector: Detector, digest: str) -> Manifest:
    """A pipeline of this detector alone, so that no more is read of a file than it needs."""
    spec = detector.spec
    only = ManifestDetector(
        name=spec.name,
        version=spec.version,
        branch=spec.branch,
        state=DetectorState.READY,
        weights=digest,
        needs=spec.needs,
    )
    return Manifest(detectors=(only,), faces=FaceDetector.VERSION, fusion=read_bundle(bundle_path())[1])


def _by_frame(detector: Any, clip: Clip, _started: float) -> Result:
    """As the SIGLIP-LSTM document has it."""
    from clipwarden.models.visual.scores import frames_of
    from clipwarden.models.visual.siglip_lstm import LEAST_FRAMES, NEED, SequenceScores

    scores: SequenceScores = detector.examine(frames_of(clip.view(NEED), LEAST_FRAMES).images)
    return scores.as_seed_json(clip.duration_s)


def _by_window(detector: Any, clip: Clip, started: float) -> Result:
    """As the LipFD document has it."""
    from clipwarden.models.lipsync.lipfd_windows import LipFdScores

    scores: LipFdScores = detector.examine(clip)
    return scores.as_seed_json(time.perf_counter() - started)


MODELS: Final[dict[str, Known]] = {
    "SIGLIP-LSTM": Known("siglip_lstm", ("V1", "V3", "V4"), _by_frame),
    "LIPFD": Known("lipfd", ("V1",), _by_window),
}
"""The documents' names → what answers to them."""
