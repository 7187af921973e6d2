"""A replay gives the verdicts that `judge` gives, by the thousand."""

from collections import Counter
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipwarden.models.catalogue import CATALOGUE, GATE
from clipwarden.models.fusion.bundle import FusionBundle, bundle_path, read_bundle
from clipwarden.models.fusion.faults import FusionFault
from clipwarden.models.fusion.replay import LABELS, columns_of, replay
from clipwarden.models.fusion.verdict import judge
from clipwarden.shared.contracts import BranchResult, Label, OutcomeStatus
from clipwarden.shared.store import Decided
from clipwarden.workers.replay import Tally, flips
from tests.unit.fusion.conftest import BUNDLE, MANIFEST, head_of, ok

RAW = BUNDLE.model_copy(update={"heads": (*BUNDLE.heads[:-1], BUNDLE.heads[-1].model_copy(update={"inputs": "raw"}))})
SHIPPED = read_bundle(bundle_path())[0]
values = st.one_of(st.floats(0, 1), st.sampled_from([float("nan"), float("inf"), -0.5, 1.5]))


def results_of(columns: tuple[str, ...], row: list[float]) -> list[BranchResult]:
    """What the branches would have reported; NaN stands for a feature that is not there."""
    by_detector: dict[str, dict[str, float]] = {}
    for name, value in zip(columns, row, strict=True):
        if not np.isnan(value):
            by_detector.setdefault(CATALOGUE[name].detector, {})[name] = value
    return [
        BranchResult(
            branch=CATALOGUE[next(iter(features))].branch,
            status=OutcomeStatus.OK,
            detectors=(ok(detector, features, 0.5),),
        )
        for detector, features in by_detector.items()
    ]


@settings(max_examples=60)
@pytest.mark.parametrize("bundle", [BUNDLE, RAW, SHIPPED], ids=["logits", "raw", "shipped"])
@given(data=st.data())
def test_a_replay_says_what_the_judge_says(bundle: FusionBundle, data: st.DataObject) -> None:
    columns = columns_of(bundle)
    rows = data.draw(st.lists(st.lists(values, min_size=len(columns), max_size=len(columns)), min_size=1, max_size=5))
    policy = data.draw(st.sampled_from(sorted(bundle.policies)))
    out = replay(bundle, columns, np.array(rows), policy)
    for k, row in enumerate(rows):
        verdict = judge(bundle, MANIFEST, results_of(columns, row), policy)
        assert (bundle.heads[out.head[k]].name if out.head[k] >= 0 else None) == verdict.head
        assert LABELS[out.label[k]] is verdict.label
        if verdict.probability is None:
            assert np.isnan(out.probability[k])
        else:
            assert out.probability[k] == pytest.approx(verdict.probability, abs=1e-12)


def test_a_gate_that_spared_the_rest_does_not_accuse() -> None:
    head = head_of("forensic_mlp").model_copy(update={"name": GATE, "feature_cols": ("tiny_prob_mean",)})
    bundle = BUNDLE.model_copy(update={"heads": (head,)})
    out = replay(bundle, columns_of(bundle), np.array([[0.9999], [0.0001]]))
    assert out.probability[0] > 0.7
    assert [LABELS[k] for k in out.label] == [Label.INCONCLUSIVE, Label.REAL]


def test_a_policy_that_the_bundle_does_not_have_is_refused() -> None:
    with pytest.raises(FusionFault, match="no policy"):
        replay(BUNDLE, columns_of(BUNDLE), np.zeros((1, len(columns_of(BUNDLE)))), "none")


def test_what_would_flip_is_told_with_both_probabilities_and_the_rest_is_counted() -> None:
    bundle = BUNDLE.model_copy(update={"heads": (head_of("cqcc_cnn"),)})
    assert columns_of(bundle) == ("audio_prob_fake",)
    page = [
        Decided(UUID(int=1), Label.REAL, 0.2, (0.9999,)),
        Decided(UUID(int=2), Label.INCONCLUSIVE, None, (None,)),
        Decided(UUID(int=3), Label.FAKE, 0.9, (None,)),
        Decided(UUID(int=4), Label.INCONCLUSIVE, 0.5, (0.5,)),
    ]
    tally = Tally()
    told = list(flips(bundle, [page[:2], page[2:]], None, tally))
    assert [(f.analysis_id, f.before, f.after) for f in told] == [
        (str(UUID(int=1)), "real", "fake"),
        (str(UUID(int=3)), "fake", "inconclusive"),
    ]
    assert told[0].probability_after > 0.7 > told[0].probability_before
    assert told[1].probability_after is None
    assert tally.labels == Counter(
        {("real", "fake"): 1, ("inconclusive", "inconclusive"): 2, ("fake", "inconclusive"): 1}
    )
    assert (tally.replayed, tally.compared) == (4, 2)
