"""A graph as TorchScript and as ONNX, by tracing, and the proof that it computes what the network computes.

PyTorch calls tracing and the exporter built on it deprecated. They are kept on purpose: both formats come about in one
way, in a sixth of the new exporter's time and without its further packages. What a trace may get wrong, a length
taken for a constant, shows when other lengths are tried, so nothing is handed out without that.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from clipwarden.models.graphs import Graph
from clipwarden.shared.errors import WorkerFault

OPSET: Final = 17
TOLERANCE: Final = 1e-4
_TRACED_BATCH: Final = 2
_TRIED_BATCH: Final = 3
_TRIED_MORE: Final = 2
"""How much longer the other axes are when the graph is tried than when it was traced."""

_WARNINGS: Final = (
    (DeprecationWarning, ""),
    (TracerWarning, ""),
    (UserWarning, "Exporting a model to ONNX with a batch_size other than 1"),
)


@torch.inference_mode()
def torchscript_bytes(graph: Graph, extra: Mapping[str, str]) -> bytes:
    """The graph as a TorchScript file, with `extra` files in it.

    Raises WorkerFault if it does not compute what the network computes.
    """
    written = io.BytesIO()
    with warnings.catch_warnings():
        _ignore_warnings()
        trace = cast("Callable[..., torch.jit.ScriptModule]", torch.jit.trace)
        module = trace(graph.network, graph.samples(_TRACED_BATCH), check_trace=False)
        prove(graph, module)
        torch.jit.save(module, written, _extra_files=dict(extra))
    return written.getvalue()


@torch.inference_mode()
def onnx_bytes(graph: Graph) -> bytes:
    """The graph as an ONNX file of opset 17, less than 2 GB, not proven yet."""
    samples, written = graph.samples(_TRACED_BATCH), io.BytesIO()
    with warnings.catch_warnings():
        _ignore_warnings()
        torch.onnx.export(
            graph.network,
            samples,
            cast("Any", written),
            input_names=[port.name for port in graph.inputs],
            output_names=[graph.output.name],
            dynamic_axes={port.name: port.axes for port in (*graph.inputs, graph.output)},
            opset_version=OPSET,
            dynamo=False,
        )
    return written.getvalue()


@torch.inference_mode()
def prove(graph: Graph, run: Callable[..., Tensor]) -> None:
    """Compare `run` with the network at lengths that the trace has not seen. Raises WorkerFault if they differ."""
    inputs = graph.samples(_TRIED_BATCH, _TRIED_MORE)
    expected = cast("Tensor", graph.network(*inputs))
    try:
        found = run(*inputs)
    except Exception as error:  # onnxruntime's errors have no common kind
        raise WorkerFault(f"the exported graph fails at other lengths than the traced ones: {error}") from error
    if found.shape != expected.shape or not _near(found, expected):
        raise WorkerFault("the exported graph does not compute what the network computes")


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1e-6))


def _ignore_warnings() -> None:
    for category, message in _WARNINGS:
        warnings.filterwarnings("ignore", message, category)
