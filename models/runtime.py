"""Networks that onnxruntime computes in place of torch, on the CPU, in float32.

The graph is exported in memory when the detector is loaded, from the very weights whose digest was checked: there is no
second file that could hold another network.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipwarden.models.detector import Detector
from clipwarden.models.graphs import NAMES, graph_of
from clipwarden.models.tracing import onnx_bytes, prove
from clipwarden.shared.errors import WorkerFault


class OnnxNetwork(nn.Module):
    """Called as the network that it stands for; like that one it has a parameter, which says where its input goes."""

    def __init__(self, model: bytes) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)
        self._session = _session(model)
        self._names = [taken.name for taken in self._session.get_inputs()]

    def forward(self, *inputs: Tensor) -> Tensor:
        fed = {name: np.ascontiguousarray(x.numpy()) for name, x in zip(self._names, inputs, strict=True)}
        return torch.from_numpy(self._session.run(None, fed)[0])


def hand_over(name: str, detector: Detector) -> None:
    """Let onnxruntime compute the network of a detector that was loaded on the CPU in float32.

    Raises WorkerFault if onnxruntime is not installed, the detector computes with more than one network in one call,
    or the two do not agree.
    """
    if name not in NAMES or not (graph := graph_of(name, detector)).sole:
        raise WorkerFault(f"{name} cannot run in onnxruntime: it computes with more than one network in one call")
    _onnxruntime()
    network = OnnxNetwork(onnx_bytes(graph))
    prove(graph, network)
    vars(detector)["_network"] = network


def _session(model: bytes) -> Any:
    """On as many threads as torch uses, which do not spin while they wait."""
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnxruntime() -> ModuleType:
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise WorkerFault("onnxruntime is wanted and not installed here: pip install onnxruntime") from error
