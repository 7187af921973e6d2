"""Weights between a file and a torch module: strict, or a fault that names every difference.

Our files are safetensors. Originals may be PyTorch checkpoints: they are read through PyTorch's allow-list of plain
tensors, so that a file that would run code is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipwarden.models.backbones.folding import fold_norms
from clipwarden.models.weights import WeightFile
from clipwarden.shared.contracts import Dtype
from clipwarden.shared.errors import WorkerFault

WRAPPERS: Final = ("model_state_dict", "state_dict", "model")
"""Names under which training programs put the weights beside the state of their optimiser."""

TYPES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The types that numbers of a network may have, as safetensors names them."""

_LAYOUTS: Final = {4: torch.channels_last, 5: torch.channels_last_3d}

PARALLEL: Final = "module."
"""What torch's DataParallel puts before every name."""


def read_state(weights: WeightFile) -> dict[str, Tensor]:
    """The tensors of a weights file on the CPU, unwrapped, by name. Raises WorkerFault if there are none to be had."""
    name = weights.path.name
    try:
        if weights.path.suffix == ".safetensors":
            found: Any = load_file(weights.path)
        else:
            found = torch.load(weights.path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise WorkerFault(f"weights {name} cannot be read: {error}") from error
    except Exception as error:  # a broken or hostile file may raise anything
        why = str(error).strip().partition("\n")[0]
        raise WorkerFault(f"weights {name} hold no plain tensors, or are cut off: {why}") from error
    if not (state := unwrapped(found)):
        raise WorkerFault(f"weights {name} hold no tensors by name")
    if strange := [key for key, tensor in state.items() if not _is_plain(tensor)]:
        raise WorkerFault(f"weights {name} hold other than plain tensors, in {', '.join(strange)}")
    if broken := [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise WorkerFault(f"weights {name} hold numbers that are not finite, in {', '.join(broken)}")
    return state


def unwrapped(found: Any) -> dict[str, Tensor]:
    """The named tensors inside what a training program saved; empty if it holds anything else, or none."""
    if not isinstance(found, Mapping):
        return {}
    inner = next((found[name] for name in WRAPPERS if isinstance(found.get(name), Mapping)), found)
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in inner.items()):
        return {}
    if inner and all(name.startswith(PARALLEL) for name in inner):
        return _below(inner, PARALLEL.rstrip("."))
    return dict(inner)


def load_into(
    module: torch.nn.Module, weights: WeightFile, device: str, dtype: Dtype = "float32", keep: tuple[str, ...] = ()
) -> None:
    """Fill `module` from a file as `fit` does. Raises WorkerFault."""
    fit(module, read_state(weights), weights.path.name, device, dtype, keep)


def fit(
    module: torch.nn.Module,
    state: Mapping[str, Tensor],
    file: str,
    device: str,
    dtype: Dtype = "float32",
    keep: tuple[str, ...] = (),
) -> None:
    """Fill `module` and move it to `device`, ready to judge (eval mode, no gradients).

    It computes in `dtype`, but for the children of any depth named in `keep`, which stay in float32. Raises WorkerFault
    if names or shapes of the tensors of `file` differ from the module's.
    """
    differences = _differences(module.state_dict(), state)
    if differences:
        raise WorkerFault(f"weights {file} do not fit {type(module).__name__}: {'; '.join(differences)}")
    module.load_state_dict(state)
    settle(module, device, dtype, keep)


def settle(module: torch.nn.Module, device: str, dtype: Dtype = "float32", keep: tuple[str, ...] = ()) -> None:
    """Bring a filled network into the form it judges in; see `fit`. Its state cannot be saved afterwards.

    From then on cuDNN computes float32 in full in this whole process: by default it drops 13 of the 23 bits behind the
    point, and evidence would depend on the device.
    """
    torch.backends.cudnn.allow_tf32 = False
    module.to(device).eval().requires_grad_(False)
    fold_norms(module)
    if dtype == "bfloat16":
        _lower(module, keep)
    _lay_out(module)


def save_from(module: torch.nn.Module, path: Path, facts: dict[str, str], dtype: torch.dtype = torch.float32) -> None:
    """Write the module's parameters and buffers, in `dtype` and by name, with `facts` as the file's metadata."""
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    kept = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, path, metadata=facts)


def facts_of(weights: WeightFile) -> dict[str, str]:
    """The metadata that `save_from` wrote; none for a file of another format."""
    if weights.path.suffix != ".safetensors":
        return {}
    with safe_open(weights.path, "np") as tensors:
        return dict(tensors.metadata() or {})


def parameter_count(module: torch.nn.Module) -> int:
    """Count trainable numbers; statistics of normalisation layers and input scalers are not among them."""
    return sum(p.numel() for p in module.parameters())


def _lower(module: torch.nn.Module, keep: tuple[str, ...]) -> None:
    """Keep the numbers of all children in bfloat16 but those below one named in `keep`."""
    for name, child in module.named_modules():
        if any(f".{kept}." in f".{name}." for kept in keep):
            continue
        for tensor in (*child.parameters(recurse=False), *child.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(torch.bfloat16)


def _lay_out(module: torch.nn.Module) -> None:
    """Put the channels of a place side by side, which convolutions take faster, and hand on to what they make."""
    for parameter in module.parameters():
        if parameter.dim() in _LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=_LAYOUTS[parameter.dim()])


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is a block of numbers of a usual type, and takes no more room in use than in its file."""
    dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    return dense and tensor.dtype in TYPES and tensor.nbytes <= tensor.untyped_storage().nbytes()


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one child, under the names it has for them."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    unknown = [f"unknown {name}" for name in sorted(found.keys() - expected.keys())]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    return missing + unknown + shapes
