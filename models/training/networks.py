"""The networks of a run: each is trained once, then read."""

from collections.abc import Callable

import torch
from torch import nn

from clipwarden.models.checkpoint import save_from
from clipwarden.models.training.run_folder import RunFolder
from clipwarden.models.weights import WeightFile, file_digest


def trained(
    run: RunFolder,
    name: str,
    fit: Callable[[], tuple[nn.Module, list[float]]],
    facts: dict[str, str],
    dtype: torch.dtype = torch.float32,
) -> WeightFile:
    """The weights under a name; if the run has none, those of what `fit` returns, whose losses become its curve."""
    path = run.path / f"{name}.safetensors"
    if not path.exists():
        network, losses = fit()
        run.write_curve(name, losses)
        part = path.with_suffix(".part")
        save_from(network, part, facts, dtype)
        part.replace(path)
    return WeightFile(path, file_digest(path))
