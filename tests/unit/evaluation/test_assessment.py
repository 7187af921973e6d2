"""What the report says of a set: figures by subject, parts, ablation by the fusion's own code, coverage, warnings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clipwarden.models.catalogue import logit
from clipwarden.models.fusion.bundle import FusionBundle, bundle_path, read_bundle
from clipwarden.models.fusion.verdict import sigmoid, weigh
from clipwarden.models.training.evaluation.assessment import MOST_LEVELS, Assessment, Background, assessed
from clipwarden.models.training.evaluation.ledger import Scores, read_scores
from clipwarden.models.training.evaluation.manifest import Duplicate, Item
from clipwarden.models.training.evaluation.seen import Overlap
from clipwarden.models.training.evaluation.subjects import recomputed, variants


@pytest.fixture(scope="module")
def bundle() -> FusionBundle:
    return read_bundle(bundle_path())[0]


@pytest.fixture
def found(scores: Scores, bundle: FusionBundle) -> Assessment:
    return assessed(scores, bundle, Background(rows=120))


def codes(found: Assessment) -> list[str]:
    return [w["code"] for w in found.warnings]


def test_every_subject_has_every_figure(found: Assessment, scores: Scores) -> None:
    assert set(found.detectors) == {"forensic_mlp", "cqcc_cnn"}
    assert set(found.baselines) == {"metadata", "sharpness", "resolution", "level_and_bandwidth"}
    assert found.fused.keys() == found.detectors["cqcc_cnn"].keys() == found.baselines["metadata"].keys()
    assert found.fused["auc"].value == pytest.approx(roc_auc_score(scores.fake, scores.number["probability"]))
    heard = ~np.isnan(scores.score("cqcc_cnn"))
    expected = roc_auc_score(scores.fake[heard], scores.score("cqcc_cnn")[heard])
    assert found.detectors["cqcc_cnn"]["auc"].value == pytest.approx(expected)
    assert found.counts["cqcc_cnn"]["items"] == 96
    assert found.thresholds["cqcc_cnn"].startswith("head cqcc_cnn, policy ")


def test_parts_are_counted_and_generators_stand_against_all_real(found: Assessment) -> None:
    generators = found.breakdown["generator"]
    assert {name: part["counts"]["real"] for name, part in generators.items()} == dict.fromkeys(
        ["maker 0", "maker 1", "maker 2"], 60
    )
    assert sum(part["counts"]["fake"] for part in generators.values()) == 60
    assert sum(part["counts"]["items"] for part in found.breakdown["channel"].values()) == 120
    assert sum(part["counts"]["items"] for part in found.breakdown["face_size"].values()) == 120
    assert "codec" not in found.breakdown
    assert "source_matched_auc" in generators["maker 0"]["fused"]


def test_beyond_the_largest_parts_the_others_are_one(scores: Scores, bundle: FusionBundle) -> None:
    many = np.array([f"maker {k // 2 if k < 104 else 0:02}" if k % 2 == 0 else "" for k in range(120)])
    found = assessed(replace(scores, text={**scores.text, "generator": many}), bundle, Background(120))
    generators = found.breakdown["generator"]
    assert len(generators) == MOST_LEVELS + 1
    assert generators["maker 00"]["counts"]["fake"] == 9
    assert generators["2 others, together"]["counts"] == {"items": 62, "real": 60, "fake": 2, "groups": 30}
    assert sum(part["counts"]["fake"] for part in generators.values()) == 60


def test_a_head_alone_is_weighed_as_the_verdict_weighs_it(scores: Scores, bundle: FusionBundle) -> None:
    subject = recomputed(scores, bundle, {"forensic_mlp", "cqcc_cnn"}, "both")
    head = bundle.head("forensic_mlp+cqcc_cnn")
    k = int(np.flatnonzero(~np.isnan(scores.score("cqcc_cnn")))[0])
    features = {name: float(scores.number[name][k]) for name in head.feature_cols}
    baseline, parts = weigh(head, features)
    assert subject.score[k] == pytest.approx(sigmoid(baseline + sum(p.log_odds for p in parts)))
    assert logit(subject.score[k]) != pytest.approx(baseline)


def test_ablation_has_every_head_and_the_fusion_without_each_branch(
    found: Assessment, scores: Scores, bundle: FusionBundle
) -> None:
    names = {head.name for head in bundle.heads} | {f"seed-{k}way" for k in (2, 3, 4, 5)}
    assert set(found.ablation) == names | {"without visual", "without audio"}
    assert found.ablation["seed-5way"]["why_not"] == "not fitted in this bundle"
    alone = next(v.subject for v in variants(scores, bundle) if v.name == "without audio")
    assert alone is not None
    only_eyes = recomputed(scores, bundle, {"forensic_mlp"}, "x")
    np.testing.assert_array_equal(alone.score, only_eyes.score)
    entry = found.ablation["without audio"]
    assert entry["figures"]["auc"].value == pytest.approx(roc_auc_score(scores.fake, alone.score))
    gain = entry["auc_less_fused"]
    assert gain.value == pytest.approx(entry["figures"]["auc"].value - found.fused["auc"].value)
    assert gain.low < gain.value < gain.high


def test_coverage_accounts_for_every_row(scores: Scores, bundle: FusionBundle) -> None:
    status = scores.text["status"].astype("U20").copy()
    status[:3] = ["missing", "not_media", "missing"]
    again = [Duplicate(Item(9, "b", True, "g"), Item(2, "a", False, "g"), contradicts=True)]
    found = assessed(replace(scores, text={**scores.text, "status": status}), bundle, Background(121, again))
    c = found.coverage
    assert (c["rows"], c["examined"], c["duplicates"], c["contradictions"]) == (121, 117, 1, 1)
    assert c["refused"] == {"missing": 2, "not_media": 1}
    assert c["detectors"]["cqcc_cnn"] == {"ok": 94, "left_out": {"no_audio": 23}}
    assert c["rows"] == c["examined"] + sum(c["refused"].values()) + c["duplicates"]
    assert "contradiction" in codes(found)


def test_one_label_gives_a_complete_report_without_auc(scores_file: Callable[..., Path], bundle: FusionBundle) -> None:
    found = assessed(read_scores(scores_file(one_label=True)), bundle, Background(120))
    assert str(found.fused["auc"]) == "undefined"
    assert found.fused["tpr_at_threshold"].value is not None
    assert "one_label" in codes(found)
    assert found.as_json()["fused"]["auc"] == {"value": None, "low": None, "high": None}


def test_a_separated_set_is_named(scores_file: Callable[..., Path], bundle: FusionBundle) -> None:
    found = assessed(read_scores(scores_file(strength=60.0)), bundle, Background(120))
    assert "separable" in codes(found)
    assert found.fused["calibration_slope"].value is None


def test_a_detector_no_better_than_the_metadata_is_named(scores: Scores, bundle: FusionBundle) -> None:
    told = replace(scores, number={**scores.number, "width": np.where(scores.fake, 640.0, 320.0)})
    found = assessed(told, bundle, Background(120))
    assert codes(found).count("not_above_metadata") == 3
    assert found.baselines["metadata"]["auc"].value == 1.0
    assert found.against_metadata["fused"].high < 0


def test_scores_of_another_pipeline_than_is_installed_are_named(scores: Scores, bundle: FusionBundle) -> None:
    assert "other_pipeline" in codes(assessed(scores, bundle, Background(120, made_by="p1", installed="p2")))
    assert "other_pipeline" not in codes(assessed(scores, bundle, Background(120, made_by="p1", installed="p1")))


def test_training_material_is_named_first(scores: Scores, bundle: FusionBundle) -> None:
    found = assessed(
        scores, bundle, Background(120, overlaps=[Overlap("forensic_mlp", 100, 0, 120)], unrecorded=["ears"])
    )
    assert found.warnings[0] == {
        "code": "in_sample",
        "text": "100 of 120 examined items were in the training data of forensic_mlp: "
        "its figures are not those of unseen material.",
    }
    assert found.warnings[1]["text"] == "What ears was trained on is not recorded: it may know these items."
