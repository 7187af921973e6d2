"""The canonical catalogue of features: every name a detector may report, and how it enters a fusion head."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from clipwarden.shared.contracts import Branch

GATE: Final = "tiny_gate"
"""The detector that looks first and may spare a clip the others."""
PROBABILITY_EDGE: Final = 1e-4
"""Probabilities are kept this far from 0 and 1 before the logit, so that one saturated score cannot decide alone."""


@dataclass(frozen=True, slots=True)
class Feature:
    """`low` and `high` bound the raw value; `transform` is applied before a head standardises it.

    `suspicion` is the sign that its coefficient may have: 1 where more of it speaks for fake, -1 where it speaks for
    real, 0 for a count, which only the heads of the 5-way pipeline may use.
    """

    name: str
    branch: Branch
    detector: str
    low: float
    high: float
    meaning: str
    transform: Literal["logit", "identity"] = "logit"
    suspicion: Literal[-1, 0, 1] = 1

    def holds(self, value: float) -> bool:
        """Whether a raw value is finite and in range."""
        return math.isfinite(value) and self.low <= value <= self.high

    def checked(self, value: float) -> float:
        """The raw value. ValueError if it is not finite or out of range."""
        if not self.holds(value):
            raise ValueError(f"{self.name} must be in [{self.low}, {self.high}], got {value}")
        return value

    def column(self, value: float) -> float:
        """The value as a fusion head of our own sees it. ValueError as for `checked`."""
        value = self.checked(value)
        if self.transform == "identity":
            return value
        return logit(value)


def logit(probability: float) -> float:
    """Log-odds of a probability that is kept PROBABILITY_EDGE from 0 and 1."""
    p = min(max(probability, PROBABILITY_EDGE), 1 - PROBABILITY_EDGE)
    return math.log(p / (1 - p))


def _fake(name: str, branch: Branch, detector: str, meaning: str) -> tuple[Feature, ...]:
    return (Feature(name, branch, detector, 0.0, 1.0, meaning),)


def _count(name: str, detector: str, high: float, meaning: str) -> tuple[Feature, ...]:
    return (Feature(name, Branch.VISUAL, detector, 0.0, high, meaning, transform="identity", suspicion=0),)


def _in_sync(name: str, detector: str, meaning: str) -> tuple[Feature, ...]:
    return (Feature(name, Branch.LIPSYNC, detector, 0.0, 1.0, meaning, suspicion=-1),)


def _per_picture(prefix: str, detector: str, of: str) -> tuple[Feature, ...]:
    """The three statistics of a detector that judges picture by picture."""
    return (
        *_fake(f"{prefix}_prob_mean", Branch.VISUAL, detector, f"mean P(fake) over {of}"),
        *_fake(f"{prefix}_prob_max", Branch.VISUAL, detector, f"largest P(fake) of {of}"),
        *_fake(f"{prefix}_prob_p90", Branch.VISUAL, detector, f"90th percentile of P(fake) over {of}"),
    )


_MOST_FACES: Final = 2048.0
_PATCHES_PER_FACE: Final = 9

CATALOGUE: Final[dict[str, Feature]] = {
    feature.name: feature
    for feature in (
        *_per_picture("tiny", "tiny_gate", "frames, each the mean over its patches"),
        *_per_picture("visual", "frame_resnet18", "face crops by the ResNet-18"),
        *_count("visual_num_faces", "frame_resnet18", _MOST_FACES, "face crops that the ResNet-18 judged"),
        *_count("tiny_num_files", "tiny_gate", _MOST_FACES, "frames that the gate judged"),
        *_count("tiny_num_patches", "tiny_gate", _PATCHES_PER_FACE * _MOST_FACES, "patches that the gate judged"),
        *_per_picture("efficientnet_b4", "frame_efficientnet_b4", "face crops by the EfficientNet-B4"),
        *_per_picture("efficientnet_lite0", "frame_efficientnet_lite0", "face crops by the EfficientNet-Lite0"),
        *_fake(
            "frame_stats_score",
            Branch.VISUAL,
            "frame_stats",
            "logistic of the frame statistics' mean logit over face crops",
        ),
        *_per_picture("frame_stats", "frame_stats", "face crops by the frame statistics"),
        *_per_picture("vit", "frame_vit", "face crops by the vision transformer"),
        *_fake(
            "forensic_score", Branch.VISUAL, "forensic_mlp", "logistic of the forensic MLP's mean logit over face crops"
        ),
        *_per_picture("forensic", "forensic_mlp", "face crops by the forensic MLP"),
        *_fake("temporal_prob_fake", Branch.VISUAL, "temporal_bilstm", "P(fake) of the BiLSTM over frame embeddings"),
        *_fake("temporal_3dcnn_prob_fake", Branch.VISUAL, "temporal_3dcnn", "P(fake) of the 3D CNN over 16 frames"),
        *_fake("siglip_lstm_prob_fake", Branch.VISUAL, "siglip_lstm", "P(fake) of SIGLIP-LSTM over up to 120 frames"),
        *_fake(
            "audio_prob_fake",
            Branch.AUDIO,
            "cqcc_cnn",
            "logistic of the CQCC network's mean logit of spoofed speech over windows",
        ),
        *_fake("mel_resnet18_prob_fake", Branch.AUDIO, "mel_resnet18", "P(spoofed speech) of the mel ResNet-18"),
        *_fake("speech_stats_prob_fake", Branch.AUDIO, "speech_stats", "P(spoofed speech) of the speech statistics"),
        *_fake("lipfd_prob_fake", Branch.LIPSYNC, "lipfd", "mean P(fake) of LipFD over windows"),
        *_fake("lipfd_fixed_prob_fake", Branch.LIPSYNC, "lipfd_fixed", "the same, its input put right"),
        *_in_sync("sync_prob", "av_sync", "probability that lips and speech are in sync; higher speaks for real"),
        *_in_sync("sync_seed_prob", "av_sync_seed", "the same by the 5-way pipeline's 768-wide head"),
        *_fake("clip_adapter_prob_fake", Branch.CLIP, "clip_adapter", "P(fake) of CLIP with adapters over 12 frames"),
    )
}
"""Feature name → feature."""

CANONICAL: Final[tuple[str, ...]] = (
    "tiny_prob_mean",
    "tiny_prob_max",
    "tiny_prob_p90",
    "visual_prob_mean",
    "visual_prob_max",
    "visual_prob_p90",
    "visual_num_faces",
    "tiny_num_files",
    "tiny_num_patches",
    "audio_prob_fake",
    "temporal_prob_fake",
    "sync_prob",
)
"""The 12 features of the 5-way pipeline in the order of its fusion files; its documents list them in another."""

SEED_HEADS: Final[dict[str, tuple[str, ...]]] = {
    f"seed-{ways}way": CANONICAL[:count] for ways, count in ((2, 9), (3, 10), (4, 11), (5, 12))
}
"""The fusion heads of the 5-way pipeline by name: frames and gate, then with audio, with time, with sync."""
