"""Baselines tell what they should not, out of fold, and learn nothing from relatives of what they are tested on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clipwarden.models.training.evaluation.baselines import BASELINES, baseline, folds
from clipwarden.models.training.evaluation.ledger import Scores, read_scores


def test_a_label_that_the_container_tells_is_told_by_the_metadata_alone(scores: Scores) -> None:
    told = replace(scores, number={**scores.number, "width": np.where(scores.fake, 640.0, 320.0)})
    assert roc_auc_score(scores.fake, baseline(told, "metadata")) == 1.0
    assert roc_auc_score(scores.fake, baseline(told, "resolution")) == 1.0
    assert abs(roc_auc_score(scores.fake, baseline(told, "sharpness")) - 0.5) < 0.2


def test_a_codec_that_tells_the_label_is_seen(scores: Scores) -> None:
    told = replace(scores, text={**scores.text, "video_codec": np.where(scores.fake, "vp9", "h264")})
    assert roc_auc_score(scores.fake, baseline(told, "metadata")) == 1.0


def test_without_what_it_looks_at_a_baseline_says_nothing(scores: Scores) -> None:
    deaf = {**scores.number, **{n: np.full(len(scores), np.nan) for n in BASELINES["level_and_bandwidth"]}}
    assert np.isnan(baseline(replace(scores, number=deaf), "level_and_bandwidth")).all()


@pytest.mark.parametrize("name", BASELINES)
def test_one_label_only_gives_no_baseline(scores_file: Callable[..., Path], name: str) -> None:
    assert np.isnan(baseline(read_scores(scores_file(one_label=True)), name)).all()


def test_a_group_lies_in_one_fold_and_every_fold_has_both_labels(scores: Scores) -> None:
    fold = folds(scores, scores.examined, seed=0)
    groups = scores.text["group"]
    assert all(len(set(fold[groups == g])) == 1 for g in np.unique(groups))
    assert all(set(scores.fake[fold == k]) == {True, False} for k in range(5))


@pytest.mark.parametrize("column", ["identity", "matched_group"])
def test_nothing_is_learnt_from_the_tested_persons_other_clips(scores: Scores, column: str) -> None:
    """One person is in every fold, and sharp where fake; everyone else is sharp where real."""
    everywhere = np.arange(len(scores)) % 10 < 6
    text = {**scores.text, "group": scores.text["path"]}
    one = np.where(everywhere, "one", [f"p{k}" for k in range(len(scores))])
    number = {**scores.number, "sharpness": np.where(everywhere == scores.fake, 1.0, 0.0)}
    told = replace(scores, text={**text, column: one}, number=number)
    assert roc_auc_score(scores.fake[everywhere], baseline(told, "sharpness")[everywhere]) == 0.0
    strangers = replace(told, text={**text, "identity": text["path"], "matched_group": text["path"]})
    assert roc_auc_score(scores.fake[everywhere], baseline(strangers, "sharpness")[everywhere]) > 0.9


def test_where_all_items_share_a_person_there_still_is_a_baseline(scores: Scores) -> None:
    everyone = replace(scores, text={**scores.text, "identity": np.full(len(scores), "one")})
    assert not np.isnan(baseline(everyone, "metadata")).any()
