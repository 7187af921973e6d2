"""LipFD's weights files and what is said beside them: for which input they were made, and with how many windows.

A file does not fit one input because it fits the network: weights of one profile are never taken for the other's. The
entry in weights.toml names the profile; a file of ours says it too, the public checkpoint says nothing and is
`original`.
"""

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from clipwarden.models.checkpoint import facts_of, fit, read_state
from clipwarden.models.lipsync.lipfd_network import CLIP_PX, TOWER, LipFdNetwork, LipFdShape
from clipwarden.models.lipsync.lipfd_windows import FRAMES, WINDOWS
from clipwarden.models.weights import WeightFile
from clipwarden.shared.contracts import Dtype
from clipwarden.shared.errors import WorkerFault

Profile = Literal["original", "fixed"]

_TEXT_BLOCK: Final = {
    "attn.in_proj_weight": (3, 1),
    "attn.in_proj_bias": (3,),
    "attn.out_proj.weight": (1, 1),
    "attn.out_proj.bias": (1,),
    "ln_1.weight": (1,),
    "ln_1.bias": (1,),
    "ln_2.weight": (1,),
    "ln_2.bias": (1,),
    "mlp.c_fc.weight": (4, 1),
    "mlp.c_fc.bias": (4,),
    "mlp.c_proj.weight": (1, 4),
    "mlp.c_proj.bias": (1,),
}
"""Tensors of one layer of CLIP's text tower, in units of its width."""


class LipFdOptions(BaseModel):
    """What the weights entry may say; but for the profile, the names are those of the original's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile
    arch: Literal["CLIP:ViT-L/14", "ViT-L/14"] = "CLIP:ViT-L/14"
    window_len: int = Field(default=FRAMES, ge=FRAMES, le=FRAMES)
    n_extract: int = Field(default=WINDOWS, ge=1, le=WINDOWS)


def options_of(weights: WeightFile, profile: Profile) -> LipFdOptions:
    """The entry's options. Raises WorkerFault if they do not fit, or if entry or file are of another profile."""
    name = weights.path.name
    try:
        options = LipFdOptions.model_validate(dict(weights.options))
    except ValidationError as error:
        raise WorkerFault(f"the options beside weights {name} are not LipFD's: {error}") from error
    for where, found in (("entry", options.profile), ("file", facts_of(weights).get("profile", "original"))):
        if found != profile:
            raise WorkerFault(f"weights {name} are of profile {found} by their {where}, this detector is {profile}")
    return options


def load_network(weights: WeightFile, device: str, dtype: Dtype) -> LipFdNetwork:
    """A checkpoint in the public layout, with CLIP's text tower, which is checked and let go, or without.

    The two networks compute in `dtype`, the weighing and the verdict always in float32. Raises WorkerFault naming every
    difference.
    """
    name = weights.path.name
    state = without_text(read_state(weights), name)
    try:
        shape = LipFdShape.of(state)
    except (KeyError, IndexError, ValueError) as error:
        raise WorkerFault(f"weights {name} are not LipFD's: {error!r}") from error
    if shape.tower.patch_px * shape.tower.grid != CLIP_PX or not shape.tower.embedding:
        raise WorkerFault(f"weights {name} hold a CLIP tower for other pictures than {CLIP_PX} px")
    network = LipFdNetwork(shape)
    fit(network, state, name, device, dtype, keep=("get_weight", "fc"))
    return network


def without_text(state: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """A checkpoint's tensors less those of CLIP's text tower, which must all be there, or none of them.

    Raises WorkerFault naming what is missing, unknown or of another shape.
    """
    text = {n: t for n, t in state.items() if n.startswith("encoder.") and not n.startswith(TOWER)}
    if not text:
        return dict(state)
    expected = _text_shapes(text)
    found = {name: tuple(tensor.shape) for name, tensor in text.items()}
    wrong = sorted({f"{name} {size}" for name, size in expected.items() ^ found.items()})
    if wrong:
        raise WorkerFault(f"weights {file} hold no whole text tower of CLIP: {', '.join(wrong)}")
    return {name: tensor for name, tensor in state.items() if name not in text}


def _text_shapes(text: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """What a text tower of the found width and depth holds."""
    tokens, places = text.get("encoder.token_embedding.weight"), text.get("encoder.positional_embedding")
    projection = text.get("encoder.text_projection")
    words, width = tokens.shape if tokens is not None and tokens.dim() == 2 else (0, 0)
    layers = {name.split(".")[3] for name in text if name.startswith("encoder.transformer.resblocks.")}
    blocks = {
        f"encoder.transformer.resblocks.{k}.{name}": tuple(width * n for n in sizes)
        for k in range(len(layers))
        for name, sizes in _TEXT_BLOCK.items()
    }
    return {
        "encoder.token_embedding.weight": (words, width),
        "encoder.positional_embedding": (0 if places is None else places.shape[0], width),
        "encoder.ln_final.weight": (width,),
        "encoder.ln_final.bias": (width,),
        "encoder.text_projection": (width, 0 if projection is None else projection.shape[-1]),
        "encoder.logit_scale": (),
        **blocks,
    }
