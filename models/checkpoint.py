"""Weights between a safetensors file and a torch module: strict, or a fault that names every difference."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clipwarden.models.weights import WeightFile
from clipwarden.shared.errors import WorkerFault


def load_into(module: torch.nn.Module, weights: WeightFile, device: str) -> None:
    """Fill `module` and move it to `device`, ready to judge (eval mode, no gradients).

    Raises WorkerFault if the file cannot be read or its names or shapes differ from the module's.
    """
    try:
        state = load_file(weights.path)
    except (OSError, SafetensorError) as error:
        raise WorkerFault(f"weights {weights.path.name} cannot be read: {error}") from error
    differences = _differences(module.state_dict(), state)
    if differences:
        raise WorkerFault(f"weights {weights.path.name} do not fit {type(module).__name__}: {'; '.join(differences)}")
    module.load_state_dict(state)
    module.to(device).eval().requires_grad_(False)


def save_from(module: torch.nn.Module, path: Path, facts: dict[str, str]) -> None:
    """Write the module's parameters and buffers, in float32 and by name, with `facts` as the file's metadata."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, path, metadata=facts)


def parameter_count(module: torch.nn.Module) -> int:
    """Count trainable numbers; statistics of normalisation layers and input scalers are not among them."""
    return sum(p.numel() for p in module.parameters())


def _differences(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> list[str]:
    missing = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    unknown = [f"unknown {name}" for name in sorted(found.keys() - expected.keys())]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    return missing + unknown + shapes
