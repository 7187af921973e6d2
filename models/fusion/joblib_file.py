"""Fusion heads from and to the `.joblib` layout of the 5-way pipeline: `model`, `feature_cols`, `temperature`.

The layout's model is a scikit-learn pipeline of a scaler and a logistic regression over raw values. A head of ours goes
out with two steps before them, clip and logit, so that its consumer passes raw probabilities as well.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, ValidationError, model_validator

from clipwarden.models.catalogue import CATALOGUE, PROBABILITY_EDGE, SEED_HEADS
from clipwarden.models.fusion.bundle import TEMPERATURE_RANGE, Frozen, Head, Linear, Number, Scale, wrong_signs
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.models.fusion.joblib_numbers import LARGEST_FILE, WALL_S

_GRACE_S: Final = 15.0
_LONGEST_ANSWER: Final = 256 * 1024


class Numbers(Frozen):
    """What a `.joblib` file says; `edges` are the bounds of its clip, None if it takes values as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    columns: tuple[str, ...]
    coef: tuple[Number, ...]
    intercept: Number
    mean: tuple[Number, ...]
    scale: tuple[Scale, ...]
    edges: tuple[float, float] | None
    temperature: Number

    @model_validator(mode="after")
    def _one_per_column(self) -> "Numbers":
        if {len(self.coef), len(self.mean), len(self.scale)} != {len(self.columns)} or not self.columns:
            raise ValueError("coefficients, scaler and feature_cols differ in length")
        return self


def read_joblib(path: Path, digest: str | None) -> Numbers:
    """The numbers of a file whose digest the caller pinned; no object of it is ever built.

    Raises FusionFault if the file is too large, not the pinned one, holds anything but the layout, or names unknown
    columns.
    """
    raw = _pinned(path, digest)
    answer = _ask(raw)
    if "refused" in answer:
        raise FusionFault(FaultCode.REFUSED, f"{path.name} is refused: {answer['refused']}")
    try:
        numbers = Numbers.model_validate_json(json.dumps(answer))
    except ValidationError as error:
        raise FusionFault(FaultCode.REFUSED, f"{path.name} is refused: {error}") from error
    if unknown := [name for name in numbers.columns if name not in CATALOGUE]:
        raise FusionFault(FaultCode.UNKNOWN_COLUMNS, f"{path.name} has columns that no detector reports: {unknown}")
    if numbers.edges not in {None, (PROBABILITY_EDGE, 1 - PROBABILITY_EDGE)}:
        raise FusionFault(FaultCode.REFUSED, f"{path.name} is refused: it clips at {numbers.edges}")
    return numbers


def _pinned(path: Path, digest: str | None) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise FusionFault(FaultCode.UNREADABLE, f"{path} cannot be read: {error}") from error
    if len(raw) > LARGEST_FILE:
        raise FusionFault(FaultCode.TOO_LARGE, f"{path.name} is larger than {LARGEST_FILE} bytes")
    actual = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    if actual != digest:
        asked = f"not {digest}" if digest else "and nothing pins it"
        raise FusionFault(
            FaultCode.OTHER_FILE, f"{path.name} is {actual}, {asked}; if that is the file you trust, give --digest"
        )
    return raw


def _ask(raw: bytes) -> dict[str, Any]:
    """Have the file read in a process of its own, with limits and a bare environment."""
    environment = {"LANG": "C.UTF-8"} | {k: os.environ[k] for k in ("LD_LIBRARY_PATH",) if k in os.environ}
    command = [sys.executable, "-I", "-m", "clipwarden.models.fusion.joblib_numbers"]
    try:
        done = subprocess.run(
            command, check=False, input=raw, capture_output=True, env=environment, timeout=WALL_S + _GRACE_S
        )
        answer = json.loads(done.stdout[:_LONGEST_ANSWER])
    except (subprocess.TimeoutExpired, ValueError):
        answer = None
    return answer if isinstance(answer, dict) else {"refused": "reading it broke the reader or hit its limits"}


def imported(numbers: Numbers, name: str | None, origin: str, constrain: bool) -> tuple[Head, list[str]]:
    """A head without thresholds, and what was changed to admit it; columns in canonical order where there is one.

    A coefficient of the wrong sign, or a temperature out of bounds, is mended only with `constrain`: the one becomes 0,
    the other the bound. Raises FusionFault otherwise, and for columns that need a name.
    """
    seed = next((n for n, columns in SEED_HEADS.items() if set(columns) == set(numbers.columns)), None)
    head_name = name or seed
    if head_name is None:
        raise FusionFault(FaultCode.UNKNOWN_HEAD, "no head has exactly these columns; give --name")
    order = [numbers.columns.index(c) for c in (SEED_HEADS[seed] if seed else numbers.columns)]
    columns = tuple(numbers.columns[i] for i in order)
    coef = [numbers.coef[i] for i in order]
    wrong = wrong_signs(columns, tuple(coef))
    low, high = TEMPERATURE_RANGE
    temperature = min(max(numbers.temperature, low), high)
    changes = [f"{c}: coefficient {coef[columns.index(c)]:+.4f} has the wrong sign, becomes 0" for c in wrong]
    if temperature != numbers.temperature:
        changes.append(f"temperature {numbers.temperature:.4f} is outside [{low}, {high}], becomes {temperature}")
    if changes and not constrain:
        raise FusionFault(FaultCode.NOT_ADMITTED, f"not admitted without --constrain: {'; '.join(changes)}")
    head = Head(
        name=head_name,
        feature_cols=columns,
        inputs="raw" if numbers.edges is None else "catalogue",
        model=Linear(
            intercept=numbers.intercept,
            coef=tuple(0.0 if c in wrong else k for c, k in zip(columns, coef, strict=True)),
            mean=tuple(numbers.mean[i] for i in order),
            scale=tuple(numbers.scale[i] for i in order),
        ),
        temperature=temperature,
        thresholds={},
        fitted_on=origin,
    )
    return head, changes


def write_joblib(path: Path, head: Head) -> None:
    """Write a head so that joblib and scikit-learn load it. Needs both installed."""
    import joblib
    from sklearn.pipeline import Pipeline

    content = {
        "model": Pipeline([*_transform(head), ("scaler", _scaler(head.model)), ("model", _regression(head.model))]),
        "feature_cols": list(head.feature_cols),
        "temperature": head.temperature,
    }
    joblib.dump(content, path)


def _transform(head: Head) -> Sequence[tuple[str, Any]]:
    import numpy as np
    from scipy.special import logit
    from sklearn.preprocessing import FunctionTransformer

    if head.inputs == "raw":
        return ()
    kept = {"a_min": PROBABILITY_EDGE, "a_max": 1 - PROBABILITY_EDGE}
    return ("clip", FunctionTransformer(np.clip, kw_args=kept)), ("logit", FunctionTransformer(logit))


def _scaler(model: Linear) -> Any:
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = np.array(model.mean), np.array(model.scale)
    scaler.var_, scaler.n_features_in_, scaler.n_samples_seen_ = scaler.scale_**2, len(model.mean), 1
    return scaler


def _regression(model: Linear) -> Any:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression()
    regression.classes_ = np.array([0, 1])
    regression.coef_, regression.intercept_ = np.array([model.coef]), np.array([model.intercept])
    regression.n_features_in_, regression.n_iter_ = len(model.coef), np.array([1])
    return regression
