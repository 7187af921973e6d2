"""The modalities."""

from enum import StrEnum


class Branch(StrEnum):
    """A modality; also the name of its queue and of its stage row."""

    VISUAL = "visual"
    AUDIO = "audio"
    LIPSYNC = "lipsync"
    CLIP = "clip"
