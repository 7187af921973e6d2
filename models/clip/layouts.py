"""Files for the CLIP adapter: our own names, or a foreign program's, told apart by the shapes outside the tower.

Of the public checkpoint's adapters no code was published, only how many numbers they have. Three designs have exactly
that count. Only the one that we build can be loaded, and only under names that say which adapter goes where; any other
file is refused, since wrongly wired adapters would give numbers that mean nothing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from torch import Tensor

from clipwarden.models.backbones.clip import hub_rest, hub_tower
from clipwarden.models.clip.adapters import ADAPTED, PLACES, RATIO
from clipwarden.shared.errors import WorkerFault

Size = tuple[int, ...]

_AIM: Final = re.compile(r"\.(\d+)\.(T|S|MLP)_Adapter\.D_fc([12])\.(weight|bias)$")
_AIM_PLACES: Final = dict(zip(("T", "S", "MLP"), PLACES, strict=True))
_HEAD: Final = ("head.0.weight", "head.0.bias", "head.3.weight", "head.3.bias")
_AIM_ENDS: Final = {"1": "down", "2": "up"}


def own_names(state: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """The tensors of a file under the names of ClipAdapterNetwork. Raises WorkerFault for a file of another design."""
    if "tower.conv1.weight" in state:
        return dict(state)
    try:
        tower, rest = hub_tower(state), hub_rest(state)
    except KeyError as error:
        raise WorkerFault(f"weights {file} hold no whole vision tower of CLIP: {error} is missing") from error
    width, layers = tower["conv1.weight"].shape[0], sum(name.endswith(".ln_1.weight") for name in tower)
    design = fingerprint((tuple(t.shape) for t in rest.values()), width)
    if design != "A":
        what = f"those of design {design}, whose wiring was not published" if design else "of no known design"
        raise WorkerFault(f"weights {file} cannot be loaded: the adapters' shapes are {what}")
    return {**{f"tower.{n}": t for n, t in tower.items()}, **_trained(rest, width, layers, file)}


def fingerprint(sizes: Iterable[Size], width: int) -> str | None:
    """Which of the designs with 5,255,938 numbers (at width 1024) has tensors of these sizes; None if none has.

    A: nine bottlenecks of a quarter of the width; B: attention, one such bottleneck, three layer norms; C: three times
    a layer norm and a bottleneck of three quarters. Each with the same two linear layers at its end.
    """
    found, end = Counter(sizes), [*_linear(width, width // 2), *_linear(width // 2, 2)]
    quarter = [*_linear(width, width // RATIO), *_linear(width // RATIO, width)]
    wide = [*_linear(width, 3 * width // 4), *_linear(3 * width // 4, width)]
    norm = [(width,), (width,)]
    designs = {
        "A": 3 * ADAPTED * quarter + end,
        "B": [*_linear(width, 3 * width), *_linear(width, width), *quarter, *3 * norm, *end],
        "C": 3 * [*norm, *wide] + end,
    }
    return next((name for name, expected in designs.items() if Counter(expected) == found), None)


def _linear(inputs: int, outputs: int) -> list[Size]:
    return [(outputs, inputs), (outputs,)]


def _trained(rest: Mapping[str, Tensor], width: int, layers: int, file: str) -> dict[str, Tensor]:
    """The adapters by AIM's names and the head by its shapes, under ours; the last layer has the last adapters."""
    ends = dict(zip(_linear(width, width // 2) + _linear(width // 2, 2), _HEAD, strict=True))
    made = {}
    for name, tensor in rest.items():
        if found := _AIM.search(name):
            layer, place, end, kind = found.groups()
            made[f"adapters.{int(layer) - layers + ADAPTED}.{_AIM_PLACES[place]}.{_AIM_ENDS[end]}.{kind}"] = tensor
        elif tuple(tensor.shape) in ends:
            made[ends[tuple(tensor.shape)]] = tensor
        else:
            raise WorkerFault(f"weights {file} cannot be loaded: the name {name} does not say which adapter it is")
    return made
