"""The frame statistics: their numbers, their evidence, and whose weights the frozen part has."""

import numpy as np
import pytest
import torch
from scipy.stats import skew

from clipwarden.models.backbones import efficientnet_lite0
from clipwarden.models.backbones.discriminant import CLAMP, Discriminant
from clipwarden.models.backbones.efficientnet_lite0 import EfficientNetLite0, pretrained
from clipwarden.models.checkpoint import parameter_count
from clipwarden.models.visual.frame_stats import COUNT, NEED, FrameStats, StageStatistics
from clipwarden.models.weights import weights_path, weights_table
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.errors import WorkerFault
from tests.networks import made, pictures, write_weights

STAGES = {1: 24, 2: 40, 3: 80, 4: 112, 5: 192}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return FrameStats.load(write_weights("frame_stats", tmp_path_factory.mktemp("weights")), "cpu")


def test_the_numbers_are_moments_over_the_places_of_what_the_stages_give():
    network, seen = pretrained().eval(), torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        numbers = StageStatistics(network)(seen).double()
        x, outputs = torch.nn.functional.relu6(network._bn0(network._conv_stem(seen))), []
        for block in network._blocks:
            x = block(x)
            outputs.append(x.double())
    last = [outputs[k] for k in (2, 4, 7, 10, 14)]
    assert [o.shape[1] for o in last] == list(STAGES.values())
    means = torch.cat([o.mean(dim=(2, 3)) for o in last], 1)
    spreads = torch.cat([o.var(dim=(2, 3), unbiased=False).sqrt() for o in last], 1)
    torch.testing.assert_close(numbers[:, :896], torch.cat([means, spreads], 1), rtol=1e-4, atol=1e-4)
    assert numbers.shape == (2, COUNT) == (2, 4 * sum(STAGES.values()) - 2 * STAGES[5])
    places = outputs[4][1].flatten(1).numpy()
    scores = (places - places.mean(1, keepdims=True)) / places.std(1, keepdims=True)
    skews, sizes = (numbers[1, first + 24 : first + 64].numpy() for first in (896, 896 + 256))
    np.testing.assert_allclose(skews, skew(places, axis=1), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(sizes, np.abs(scores).mean(axis=1), rtol=0.01)


def test_the_discriminant_is_a_line_over_clamped_standard_scores():
    network = made("frame_stats")
    numbers = torch.randn(5, COUNT, generator=torch.Generator().manual_seed(1)) * 100
    standard = (numbers.double() - network.scaler_mean.double()) / network.scaler_scale.double()
    expected = standard.clamp(-CLAMP, CLAMP) @ network.fc.weight[0].double() + network.fc.bias.double()
    torch.testing.assert_close(network(numbers).double(), expected, rtol=1e-4, atol=1e-3)
    assert parameter_count(Discriminant(COUNT)) == FrameStats.spec.parameters == COUNT + 1


def test_the_score_is_the_logistic_of_the_mean_logit_over_faces(detector):
    shown = pictures(3, 224, seed=5)
    view = View.of(shown, np.arange(3.0), np.array([[0, 0, 90, 90]] * 3, np.float32))
    evidence = detector.assess(Clip(views={NEED.key: view}, duration_s=3.0))
    logits = detector.predict(shown)
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-logits.mean())))
    assert evidence.features["frame_stats_score"] == evidence.score
    assert [w.score for w in evidence.windows] == pytest.approx((1 / (1 + np.exp(-logits))).tolist())


def test_the_frozen_part_is_the_package_s_and_nothing_of_it_is_in_our_file():
    entry = weights_table()["frame_stats"]
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) > 3_000_000
    path = weights_path(entry)
    assert path is None or path.stat().st_size < 20_000


def test_other_weights_than_the_package_s_are_refused(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "IMAGENET_DIGEST", "sha256:0")
    with pytest.raises(WorkerFault, match="install that again"):
        pretrained()
