"""A bundle is what was fitted, to the last digit, or it is refused with a code."""

import json
from pathlib import Path

import pytest

from clipwarden.models.catalogue import CANONICAL, CATALOGUE, SEED_HEADS
from clipwarden.models.fusion.bundle import (
    LARGEST_BUNDLE,
    FusionBundle,
    Head,
    Linear,
    Thresholds,
    bundle_path,
    read_bundle,
    write_bundle,
)
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.shared.errors import WorkerFault
from tests.unit.fusion.conftest import BUNDLE, head_of


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle.json", BUNDLE)
    return tmp_path / "bundle.json"


def refusal(path: Path, digest: str | None = None) -> str:
    with pytest.raises(FusionFault) as refused:
        read_bundle(path, digest)
    assert isinstance(refused.value, WorkerFault)
    assert f"[{refused.value.code}]" in str(refused.value)
    return refused.value.code


def test_what_is_written_is_read_whatever_the_layout(written: Path) -> None:
    assert read_bundle(written) == (BUNDLE, BUNDLE.digest)
    content = json.loads(written.read_text())
    written.write_text(json.dumps(dict(reversed(content.items()))))
    assert read_bundle(written, BUNDLE.digest) == (BUNDLE, BUNDLE.digest)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"temperature": 1.7', '"temperature": 1.8'),
        ('"fake": 0.7', '"fake": 0.6'),
        ('"policy": "balanced"', '"policy": "high-recall"'),
        ('"fitted_on": "nothing"', '"fitted_on": "much"'),
    ],
)
def test_an_edited_bundle_is_refused(written: Path, old: str, new: str) -> None:
    text = written.read_text()
    assert old in text
    written.write_text(text.replace(old, new, 1))
    assert refusal(written) == FaultCode.EDITED


def test_another_bundle_than_the_pipeline_s_is_refused(written: Path) -> None:
    assert refusal(written, f"sha256:{'1' * 64}") == FaultCode.OTHER_BUNDLE


def test_a_bundle_of_another_version_is_refused(written: Path) -> None:
    written.write_text(written.read_text().replace('"format": 1', '"format": 2', 1))
    assert refusal(written) == FaultCode.OTHER_VERSION


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 1}', '{"format": 1, "policy": "p", "policies": {}, "heads": []}', "[" * 100_000]
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    assert refusal(path) in {FaultCode.MALFORMED, FaultCode.OTHER_VERSION}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e7"])
def test_a_number_that_could_not_be_summed_is_refused(written: Path, number: str) -> None:
    written.write_text(written.read_text().replace('"intercept": -0.2', f'"intercept": {number}', 1))
    assert refusal(written) == FaultCode.MALFORMED


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.json") == FaultCode.UNREADABLE
    (tmp_path / "huge.json").write_bytes(b" " * (LARGEST_BUNDLE + 1))
    assert refusal(tmp_path / "huge.json") == FaultCode.TOO_LARGE


def head(column: str, coef: float = 0.5, inputs: str = "catalogue", temperature: float = 1.0) -> Head:
    return Head(
        name="h",
        feature_cols=(column,),
        inputs=inputs,
        model=Linear(intercept=0, coef=(coef,), mean=(0,), scale=(1,)),
        temperature=temperature,
        thresholds={"balanced": Thresholds(real=0.3, fake=0.7)},
        fitted_on="tests",
    )


@pytest.mark.parametrize(("column", "coef"), [("audio_prob_fake", -0.1), ("sync_prob", 0.1)])
def test_a_coefficient_by_which_more_suspicion_lowers_the_probability_is_refused(column: str, coef: float) -> None:
    assert head(column, -coef).model.coef == (-coef,)
    with pytest.raises(ValueError, match="more suspicion would lower"):
        head(column, coef)


def test_counts_exist_for_raw_heads_only() -> None:
    assert head("visual_num_faces", -0.5, inputs="raw").column("visual_num_faces", 12) == 12
    with pytest.raises(ValueError, match="counts"):
        head("visual_num_faces")


def test_unknown_or_repeated_columns_and_odd_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="no detector reports"):
        head("colour_of_the_sky")
    twice = head_of("forensic_mlp").model_dump() | {"feature_cols": ("forensic_score", "forensic_score")}
    with pytest.raises(ValueError, match="one number per column"):
        Head.model_validate(twice)


@pytest.mark.parametrize("temperature", [0.49, 5.01, 0.36787944117])
def test_a_temperature_out_of_bounds_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        head("audio_prob_fake", temperature=temperature)


def test_the_seeds_heads_are_known_by_name_in_canonical_order_and_not_fitted() -> None:
    shipped = read_bundle(bundle_path())[0]
    assert {h.name: h.feature_cols for h in shipped.unfitted} == SEED_HEADS
    assert [len(SEED_HEADS[f"seed-{k}way"]) for k in (2, 3, 4, 5)] == [9, 10, 11, 12]
    assert SEED_HEADS["seed-5way"] == CANONICAL
    assert CANONICAL[6:9] == ("visual_num_faces", "tiny_num_files", "tiny_num_patches")
    every = {name for columns in SEED_HEADS.values() for name in columns}
    assert shipped.largest(every, "balanced").name not in SEED_HEADS
    with pytest.raises(FusionFault, match="is not fitted"):
        shipped.head("seed-5way")


def test_the_catalogue_says_of_every_feature_what_it_is() -> None:
    assert set(CANONICAL) <= set(CATALOGUE)
    for name, feature in CATALOGUE.items():
        assert (feature.name, feature.low < feature.high, bool(feature.meaning)) == (name, True, True)
        assert (feature.suspicion == 0) == ("_num_" in name)
        assert (feature.transform == "identity") == ("_num_" in name)


def test_a_bundle_holds_together() -> None:
    content = BUNDLE.model_dump()
    for change, words in (
        ({"policy": "none"}, "no head has thresholds"),
        ({"heads": content["heads"] * 2}, "two heads have one name"),
        ({"policies": {"high-recall": content["policies"]["high-recall"]}}, "thresholds of policies"),
    ):
        with pytest.raises(ValueError, match=words):
            FusionBundle.model_validate({**content, **change})
