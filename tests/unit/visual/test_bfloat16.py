"""bfloat16 keeps the direction of every embedding, and the probabilities of a head on what it tells apart.

Such a head is a random mixture of the sample's own embeddings, less their mean: like a trained head, and unlike noise,
it reads directions in which embeddings differ.
"""

import copy

import numpy as np
import pytest
import torch

from clipwarden.models.backbones import efficientnet_b4, efficientnet_lite0
from clipwarden.models.backbones.pictures import HALVES, PictureInput, infer
from clipwarden.models.checkpoint import settle
from tests.networks import made, pictures, siglip_lstm

KEPT = {
    "frame_resnet18": ("fc",),
    "frame_efficientnet_b4": ("classifier", *efficientnet_b4.IN_FLOAT32),
    "frame_efficientnet_lite0": efficientnet_lite0.IN_FLOAT32,
    "frame_vit": ("classifier",),
    "siglip_lstm": ("lstm", "video_classifier", "image_classifier"),
}
INPUT = PictureInput(224, *HALVES)


@pytest.mark.parametrize("name", KEPT)
def test_embeddings_and_probabilities_survive_bfloat16(name):
    network = siglip_lstm(0) if name == "siglip_lstm" else made(name)
    exact, short = copy.deepcopy(network), copy.deepcopy(network)
    settle(exact, "cpu")
    settle(short, "cpu", "bfloat16", KEPT[name])
    shown = pictures(12, 224, seed=21)
    a, b = (infer(n, INPUT, shown, 6, n.embed).astype(np.float64) for n in (exact, short))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() >= 0.999
    centred = a - a.mean(axis=0)
    head = centred.T @ np.random.default_rng(2).normal(size=len(a))
    scale = 4 / np.abs(centred @ head).max()
    logits = [(e - a.mean(axis=0)) @ head * scale for e in (a, b)]
    probabilities = [1 / (1 + np.exp(-x)) for x in logits]
    assert np.abs(probabilities[0] - probabilities[1]).max() <= 2e-2
    assert {p.dtype for p in short.parameters()} == {torch.float32, torch.bfloat16}
