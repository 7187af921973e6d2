"""Where somebody speaks: silero-vad (MIT), its weights from the package that ships them, in one pass over the sound.

The package itself is not imported: it sets the number of threads of the whole process, and it judges chunk by chunk in
Python. The TorchScript file is the model that its ONNX files hold too; the safetensors file beside it is an older one.
"""

import hashlib
import io
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.shared.errors import WorkerFault

PACKAGE: Final = "silero_vad"
FILE: Final = "data/silero_vad.jit"
DIGEST: Final = "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"
CHUNK: Final = 512  # samples at 16 kHz, 32 ms
CONTEXT: Final = 64  # samples before a chunk that are seen with it
SPEECH: Final = 0.5
"""Probability from which a chunk counts as speech; the package's own default."""

_LINES: Final = 129
_NAMES: Final = {
    "_model.stft.forward_basis_buffer": "spectrum.weight",
    **{f"_model.encoder.{k}.reparam_conv.{of}": f"conv{k + 1}.{of}" for k in range(4) for of in ("weight", "bias")},
    **{f"_model.decoder.rnn.{of}_{side}": f"lstm.{of}_{side}_l0" for of in ("weight", "bias") for side in ("ih", "hh")},
    **{f"_model.decoder.decoder.2.{of}": f"last.{of}" for of in ("weight", "bias")},
}


class SpeechNetwork(nn.Module):
    """A wave (N,) at 16 kHz to the probability of speech of each chunk (⌈N / 512⌉,), by all chunks up to it."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 2 * _LINES, 256, 128, bias=False)
        self.conv1 = nn.Conv1d(_LINES, 128, 3, 1, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, 2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, 1, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.last = nn.Conv1d(128, 1, 1)

    def forward(self, wave: Tensor) -> Tensor:
        chunks = nn.functional.pad(wave, (CONTEXT, -len(wave) % CHUNK)).unfold(0, CONTEXT + CHUNK, CHUNK)
        spectrum = self.spectrum(nn.functional.pad(chunks.unsqueeze(1), (0, CONTEXT), mode="reflect"))
        x = (spectrum[:, :_LINES].square() + spectrum[:, _LINES:].square()).sqrt()
        for k in range(1, 5):
            x = torch.relu(getattr(self, f"conv{k}")(x))
        remembered, _ = self.lstm(x.squeeze(2))
        return torch.sigmoid(cast("Tensor", self.last(torch.relu(remembered).unsqueeze(2)))).flatten()

    @torch.inference_mode()
    def hears(self, wave: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which chunks (⌈N / 512⌉,) of a wave at 16 kHz are speech; the last chunk may be cut short by the end."""
        probabilities = self(torch.from_numpy(np.ascontiguousarray(wave, np.float32)))
        return np.asarray(probabilities.numpy() >= SPEECH)


@cache
def speech_network() -> SpeechNetwork:
    """The installed network, on the CPU, loaded once. Raises WorkerFault if it is not the one expected."""
    content = _content()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript; its tensors have no other container here
        script = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    state = {_NAMES[name]: tensor for name, tensor in script.state_dict().items() if name in _NAMES}
    network = SpeechNetwork()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _content() -> bytes:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WorkerFault("the speech network is not installed: pip install silero-vad==6.2.3")
    path = Path(spec.submodule_search_locations[0]) / FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkerFault(f"speech network {path} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != DIGEST:
        raise WorkerFault(f"speech network {path} is not that of silero-vad 6.2.3; install this version")
    return content
