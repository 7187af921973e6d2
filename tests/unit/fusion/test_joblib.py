"""Numbers come in from `.joblib` files and go out to them; no object of a file is ever built."""

import gzip
import hashlib
import pickle
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from clipwarden.models.catalogue import CANONICAL, SEED_HEADS
from clipwarden.models.fusion.bundle import Thresholds, bundle_path, read_bundle
from clipwarden.models.fusion.commands import with_head
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.models.fusion.inert_pickle import Refused
from clipwarden.models.fusion.joblib_file import imported, read_joblib, write_joblib
from clipwarden.models.fusion.joblib_numbers import LARGEST_FILE, LARGEST_UNPACKED, numbers
from clipwarden.models.fusion.verdict import sigmoid, weigh
from clipwarden.shared.cli import main

SEED_DOCUMENT_ORDER = (*CANONICAL[:3], *CANONICAL[7:9], *CANONICAL[3:7], *CANONICAL[9:])


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def fitted(columns: tuple[str, ...], seed: int = 0) -> tuple[Pipeline, np.ndarray]:
    """A pipeline as the 5-way pipeline's authors fit it, with every sign as the catalogue wants it."""
    rng = np.random.default_rng(seed)
    fake = rng.random(300) < 0.5
    sign = np.array([-1.0 if c == "sync_prob" else 1.0 for c in columns])
    x = expit(rng.normal(size=(300, len(columns))) + 1.5 * sign * fake[:, None])
    counts = [k for k, c in enumerate(columns) if "_num_" in c]
    x[:, counts] = rng.integers(8, 17, (300, len(counts)))
    return Pipeline([("scaler", StandardScaler()), ("lr", LogisticRegression(C=0.5))]).fit(x, fake.astype(int)), x


def dumped(path: Path, content: object, compress: int = 0) -> Path:
    joblib.dump(content, path, compress=compress)
    return path


def layout(columns: tuple[str, ...], temperature: object = 0.8, **more: object) -> dict[str, object]:
    return {"model": fitted(columns)[0], "feature_cols": list(columns), "temperature": temperature, **more}


@pytest.fixture
def seed_file(tmp_path: Path) -> Path:
    return dumped(tmp_path / "seed.joblib", layout(CANONICAL))


@pytest.mark.parametrize("compress", [0, 3])
@pytest.mark.parametrize("columns", [*SEED_HEADS.values(), SEED_DOCUMENT_ORDER])
def test_a_head_comes_in_with_its_numbers_in_canonical_order(
    tmp_path: Path, columns: tuple[str, ...], compress: int
) -> None:
    path = dumped(tmp_path / "f.joblib", layout(columns, np.float64(0.8), metrics={"auc": 1.0}), compress)
    head, changes = imported(read_joblib(path, digest(path)), None, "tests", constrain=False)
    assert (SEED_HEADS[head.name], head.temperature, head.inputs, changes) == (head.feature_cols, 0.8, "raw", [])
    model, x = fitted(columns)
    expected = expit(logit(model.predict_proba(x[:20])[:, 1]) / 0.8)
    for row, p in zip(x[:20], expected, strict=True):
        assert probability(head, dict(zip(columns, row, strict=True))) == pytest.approx(p, abs=1e-12)


def probability(head, features) -> float:
    baseline, contributions = weigh(head, features)
    return sigmoid(baseline + sum(c.log_odds for c in contributions))


def test_names_in_an_array_and_a_bare_regression_are_read_as_well(tmp_path: Path) -> None:
    columns = SEED_HEADS["seed-3way"]
    content = layout(columns) | {"feature_cols": np.array(columns, dtype=object)}
    path = dumped(tmp_path / "a.joblib", content)
    assert read_joblib(path, digest(path)).columns == columns
    bare = LogisticRegression().fit(fitted(columns)[1], np.arange(300) % 2)
    path = dumped(tmp_path / "b.joblib", {"model": bare, "feature_cols": columns})
    found = read_joblib(path, digest(path))
    assert (found.mean, found.scale, found.temperature) == ((0.0,) * 10, (1.0,) * 10, 1.0)
    np.testing.assert_array_equal(found.coef, bare.coef_[0])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_that_joblib_writes_is_read(tmp_path: Path, protocol: int) -> None:
    joblib.dump(layout(CANONICAL), tmp_path / "f.joblib", protocol=protocol)
    assert read_joblib(tmp_path / "f.joblib", digest(tmp_path / "f.joblib")).columns == CANONICAL


@pytest.mark.parametrize("name", ["forensic_mlp", "cqcc_cnn", "forensic_mlp+cqcc_cnn"])
def test_what_goes_out_is_loaded_by_joblib_and_gives_our_probability(tmp_path: Path, name: str) -> None:
    head = read_bundle(bundle_path())[0].head(name)
    write_joblib(tmp_path / "out.joblib", head)
    content = joblib.load(tmp_path / "out.joblib")
    assert set(content) == {"model", "feature_cols", "temperature"}
    assert content["feature_cols"] == list(head.feature_cols)
    x = np.random.default_rng(1).random((50, len(head.feature_cols)))
    x[0], x[1] = 0.0, 1.0
    theirs = expit(logit(content["model"].predict_proba(x)[:, 1]) / content["temperature"])
    ours = [probability(head, dict(zip(head.feature_cols, row, strict=True))) for row in x]
    np.testing.assert_allclose(theirs, ours, atol=1e-12)


def test_what_goes_out_comes_back_the_same(tmp_path: Path, seed_file: Path) -> None:
    shipped = read_bundle(bundle_path())[0].head("forensic_mlp+cqcc_cnn")
    raw = imported(read_joblib(seed_file, digest(seed_file)), None, "tests", constrain=False)[0]
    for head in (shipped, raw):
        path = tmp_path / "out.joblib"
        write_joblib(path, head)
        back = imported(read_joblib(path, digest(path)), head.name, "tests", constrain=False)[0]
        same = ("feature_cols", "inputs", "model", "temperature")
        assert [getattr(back, f) for f in same] == [getattr(head, f) for f in same]


def test_wrong_signs_and_a_sharpening_temperature_are_admitted_only_when_mended(tmp_path: Path) -> None:
    content = layout(CANONICAL, 0.36787944117)
    content["model"][-1].coef_[0, CANONICAL.index("audio_prob_fake")] = -0.10
    content["model"][-1].coef_[0, CANONICAL.index("sync_prob")] = 0.22
    path = dumped(tmp_path / "f.joblib", content)
    found = read_joblib(path, digest(path))
    with pytest.raises(FusionFault, match=r"audio_prob_fake.*sync_prob.*temperature 0\.3679") as refused:
        imported(found, None, "tests", constrain=False)
    assert refused.value.code == FaultCode.NOT_ADMITTED
    head, changes = imported(found, None, "tests", constrain=True)
    by_column = dict(zip(head.feature_cols, head.model.coef, strict=True))
    assert (by_column["audio_prob_fake"], by_column["sync_prob"], head.temperature) == (0.0, 0.0, 0.5)
    assert len(changes) == 3


def refused(path: Path, pinned: str | None = None) -> FusionFault:
    with pytest.raises(FusionFault) as fault:
        read_joblib(path, pinned or digest(path))
    return fault.value


def test_a_file_that_nothing_pins_or_another_than_the_pinned_one_is_refused(seed_file: Path) -> None:
    assert refused(seed_file, f"sha256:{'0' * 64}").code == FaultCode.OTHER_FILE
    with pytest.raises(FusionFault, match="nothing pins it"):
        read_joblib(seed_file, None)
    assert refused(seed_file.with_name("none"), "sha256:").code == FaultCode.UNREADABLE


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "huge.joblib").write_bytes(b"\0" * (LARGEST_FILE + 1))
    assert refused(tmp_path / "huge.joblib").code == FaultCode.TOO_LARGE


class Touch:
    """What a hostile file would do if it were loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    path = dumped(tmp_path / "evil.joblib", layout(CANONICAL, Touch(target)))
    assert refused(path).code == FaultCode.REFUSED
    assert not target.exists()
    joblib.load(path)
    assert target.exists()


def pickled(*operations: bytes) -> bytes:
    return b"".join((b"\x80\x04", *operations, b"."))


def array_of(*shape: int) -> bytes:
    """A joblib wrapper that announces an array of this shape, and no data."""
    wrapper = pickle.dumps(joblib.numpy_pickle.NumpyArrayWrapper(np.ndarray, shape, "C", np.dtype("f8")), 2)
    return wrapper[:-1] + b"."


HOSTILE = {
    "a call of system": (b"cos\nsystem\n(S'true'\ntR.", "posix.system|os.system|STRING"),
    "a call by name on the stack": (
        pickled(b"\x8c\x02os", b"\x8c\x06system", b"\x93", b"\x8c\x04true\x85R"),
        "os.system",
    ),
    "eval": (pickled(b"cbuiltins\neval\n", b"\x8c\x011\x85R"), "builtins.eval"),
    "a getattr chain": (pickled(b"cbuiltins\ngetattr\n"), "builtins.getattr"),
    "an attribute of an allowed module": (pickled(b"cnumpy\nload\n"), "numpy.load"),
    "a dotted name": (pickled(b"\x8c\x05numpy", b"\x8c\x0cdtype.__init__"[:-2], b"\x93"), "not on the list|malformed"),
    "an old instance": (b"(ios\nsystem\n.", "INST"),
    "a persistent id": (b"Pwhatever\n.", "PERSID"),
    "an extension": (pickled(b"\x82\x01"), "EXT1"),
    "a call of a word that describes nothing": (pickled(b"cnumpy\nclip\n)R"), "calls clip"),
    "an array of 2**62 numbers": (array_of(2**31, 2**31), "shape"),
    "an array of negative length": (array_of(-1), "shape"),
    "an array without its data": (array_of(8), "malformed"),
    "a list": (pickled(b"]"), "list where dict"),
    "nothing in it": (pickled(b"}"), "lacks 'model'"),
    "an empty stack": (b"\x80\x04.", "malformed"),
    "a memo that was never stored": (b"\x80\x04h\x07.", "never stored"),
    "no mark": (pickled(b"t"), "malformed"),
    "endless pushing": (b"\x80\x04" + b"N" * 200_000, "too many steps"),
    "no pickle": (b"<html>", "malformed"),
    "nothing": (b"", "malformed"),
    "a zip bomb": (zlib.compress(b"N" * (LARGEST_UNPACKED + 1), 9), "unpacks to more"),
    "broken zlib": (b"\x78\x9c" + b"\xff" * 50, "cannot be unpacked"),
    "gzip": (gzip.compress(b"x"), "packed by gzip"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_holds_more_than_numbers_is_refused_with_its_reason(name: str) -> None:
    raw, words = HOSTILE[name]
    with pytest.raises(Refused, match=words):
        numbers(raw)


def test_hostile_bytes_are_refused_by_the_confined_process_too(tmp_path: Path) -> None:
    bomb = b"\x80\x04" + b"]" + b"(" + b"N" * 90_000 + b"e" + b"2" * 10
    for number, raw in enumerate((HOSTILE["a call of system"][0], HOSTILE["a zip bomb"][0], bomb)):
        path = tmp_path / f"{number}.joblib"
        path.write_bytes(raw)
        assert refused(path).code == FaultCode.REFUSED


def test_a_thousand_damaged_files_are_read_or_refused_and_nothing_else(seed_file: Path) -> None:
    whole, rng = seed_file.read_bytes(), np.random.default_rng(3)
    outcomes = set()
    for _ in range(1000):
        raw = bytearray(whole)
        for place in rng.integers(0, len(raw), rng.integers(1, 4)):
            raw[place] = rng.integers(256)
        try:
            outcomes.add(type(numbers(bytes(raw))))
        except Refused:
            outcomes.add(Refused)
    assert outcomes == {dict, Refused}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feature_cols": list(CANONICAL[:11])}, "differ in length"),
        ({"temperature": float("nan")}, "refused"),
        ({"temperature": "warm"}, "str where int or float"),
        ({"model": MinMaxScaler()}, "not on the list"),
        ({"model": StandardScaler().fit(np.eye(2))}, "StandardScaler, not a scaler and"),
    ],
)
def test_a_layout_with_other_things_in_it_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = dumped(tmp_path / "f.joblib", layout(CANONICAL) | change)
    assert words in str(refused(path))


def test_other_classes_and_infinite_coefficients_are_refused(tmp_path: Path) -> None:
    model, x = fitted(CANONICAL)
    other = Pipeline(model.steps).fit(x, 1 + np.arange(300) % 2)
    path = dumped(tmp_path / "f.joblib", {"model": other, "feature_cols": list(CANONICAL)})
    assert "classes" in str(refused(path))
    content = layout(CANONICAL)
    content["model"][-1].coef_[0, 0] = np.inf
    assert refused(dumped(tmp_path / "f.joblib", content)).code == FaultCode.REFUSED


def test_unknown_columns_are_refused_and_known_ones_without_a_head_need_a_name(tmp_path: Path) -> None:
    columns = ("audio_prob_fake", "colour_of_the_sky")
    path = dumped(tmp_path / "f.joblib", layout(columns))
    assert refused(path).code == FaultCode.UNKNOWN_COLUMNS
    path = dumped(tmp_path / "g.joblib", layout(("audio_prob_fake", "temporal_prob_fake")))
    found = read_joblib(path, digest(path))
    with pytest.raises(FusionFault, match="--name"):
        imported(found, None, "tests", constrain=False)
    assert imported(found, "mine", "tests", constrain=False)[0].name == "mine"


def test_an_imported_head_is_used_under_a_policy_of_its_own(seed_file: Path) -> None:
    shipped = read_bundle(bundle_path())[0]
    head = imported(read_joblib(seed_file, digest(seed_file)), None, "tests", constrain=False)[0]
    bundle = with_head(shipped, head, Thresholds(real=0.25, fake=0.75))
    assert bundle.policy == "imported"
    assert bundle.largest(set(CANONICAL), "imported").name == "seed-5way"
    assert bundle.largest(set(CANONICAL), "balanced").name == "cqcc_cnn"
    assert "seed-5way" not in {h.name for h in bundle.unfitted}
    again = with_head(bundle, head, Thresholds(real=0.1, fake=0.9))
    assert [h.name for h in again.heads] == [h.name for h in bundle.heads]


def test_the_commands_import_and_export(tmp_path: Path, seed_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, back = tmp_path / "b.json", tmp_path / "back.joblib"
    assert main(["fusion", "import", str(seed_file), "--out", str(out)]) == 2
    assert digest(seed_file) in capsys.readouterr().err
    assert main(["fusion", "import", str(seed_file), "--digest", digest(seed_file), "--out", str(out)]) == 0
    assert main(["fusion", "export", "seed-5way", str(back), "--bundle", str(out)]) == 0
    assert "seed-5way" in capsys.readouterr().out
    np.testing.assert_allclose(joblib.load(back)["model"][-1].coef_, joblib.load(seed_file)["model"][-1].coef_)
    assert main(["fusion", "export", "seed-5way", str(back)]) == 2
    assert "is not fitted" in capsys.readouterr().err
    thresholds = ["--real", "0.8", "--fake", "nan"]
    assert (
        main(["fusion", "import", str(seed_file), "--digest", digest(seed_file), *thresholds, "--out", str(out)]) == 2
    )
    assert "--real and --fake" in capsys.readouterr().err
