"""Reads the numbers of a fusion head out of a `.joblib` file: `python -m clipwarden.models.fusion.joblib_numbers`.

Takes the file on standard input and answers in JSON. The pickle in it is walked, never loaded (see `inert_pickle`); the
process has limits all the same, because whoever wrote the file also wrote what it costs to read.
"""

import ctypes
import json
import resource
import signal
import struct
import sys
import zlib
from io import BytesIO
from typing import Any, Final

from clipwarden.models.fusion.inert_pickle import Machine, Refused, Thing, Word, of_kind

LARGEST_FILE: Final = 1024 * 1024
LARGEST_UNPACKED: Final = 4 * LARGEST_FILE
MEMORY_BYTES: Final = 512 * 1024 * 1024
CPU_S: Final = 5
WALL_S: Final = 15.0
SCALED: Final = ["StandardScaler"]
TRANSFORMED: Final = ["FunctionTransformer", "FunctionTransformer"]
OTHER_PACKINGS: Final = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x04\x22": "lz4", b"]\0": "lzma"}
_PR_SET_NO_NEW_PRIVS: Final = 38


def unpacked(raw: bytes) -> bytes:
    """The pickle inside the file; joblib's zlib is undone up to a limit, its other packings are refused."""
    for magic, name in OTHER_PACKINGS.items():
        if raw.startswith(magic):
            raise Refused(f"it is packed by {name}; dump it again with compress=0")
    if raw[:1] != b"\x78":
        return raw
    try:
        found = zlib.decompressobj().decompress(raw, LARGEST_UNPACKED + 1)
    except zlib.error as error:
        raise Refused(f"it cannot be unpacked: {error}") from error
    if len(found) > LARGEST_UNPACKED:
        raise Refused(f"it unpacks to more than {LARGEST_UNPACKED} bytes")
    return found


def numbers(raw: bytes) -> dict[str, Any]:
    """Columns, coefficients, scaler and temperature of a fusion file. Raises Refused for anything else."""
    try:
        content = of_kind(dict, Machine(BytesIO(unpacked(raw))).run())
        return {
            **_model(of_kind(Thing, content["model"])),
            "columns": [of_kind(str, name) for name in of_kind((list, tuple), content["feature_cols"])],
            "temperature": float(of_kind((int, float), content.get("temperature", 1.0))),
        }
    except KeyError as error:
        raise Refused(f"it lacks {error}") from error
    except (ValueError, IndexError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise Refused(f"it is malformed: {error}") from error


def _model(model: Thing) -> dict[str, Any]:
    """A logistic regression, alone or at the end of a pipeline behind a scaler and our own clip and logit."""
    steps = [model]
    if model.name == "Pipeline":
        steps = [of_kind(Thing, of_kind(tuple, step)[1]) for step in of_kind(list, model.state["steps"])]
    *before, last = steps
    kinds = [step.name for step in steps]
    if kinds[-1] != "LogisticRegression" or kinds[:-1] not in ([], SCALED, TRANSFORMED + SCALED):
        raise Refused(f"its model is {' > '.join(kinds)}, not a scaler and a logistic regression")
    classes = last.state["classes_"]
    if list(classes) != [0, 1]:
        raise Refused(f"its classes are {classes}, not 0 (real) and 1 (fake)")
    coef, (intercept,) = last.state["coef_"], last.state["intercept_"]
    found: dict[str, Any] = {"coef": coef, "intercept": intercept, "edges": None}
    if kinds[:2] == TRANSFORMED:
        found["edges"] = _edges(*before[:2])
    scaler = before[-1].state if before else {}
    mean, scale = scaler.get("mean_"), scaler.get("scale_")
    return {**found, "mean": mean or [0.0] * len(coef), "scale": scale or [1.0] * len(coef)}


def _edges(clip: Thing, logit: Thing) -> list[float]:
    """Between which probabilities are kept before the logit."""
    if (of_kind(Word, clip.state["func"]).name, of_kind(Word, logit.state["func"]).name) != ("clip", "logit"):
        raise Refused("its transformation is not clip and logit")
    kept = of_kind(dict, clip.state["kw_args"])
    return [kept["a_min"], kept["a_max"]]


def confine() -> None:
    """Bound this process before it looks at the file: memory, time, no new files, no rights to gain."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, MEMORY_BYTES),
    ):
        resource.setrlimit(kind, (limit, limit))
    signal.setitimer(signal.ITIMER_REAL, WALL_S)


def main() -> None:
    """One file in, one JSON object out."""
    confine()
    try:
        answer = numbers(sys.stdin.buffer.read(LARGEST_FILE))
    except Refused as refused:
        answer = {"refused": str(refused)[:300]}
    except (MemoryError, RecursionError):
        answer = {"refused": "it takes too much memory to read"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
