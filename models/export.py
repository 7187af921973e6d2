"""`clipwarden models export`: a detector's network as one file for programs that run it without this package.

The file takes any batch size and carries what its user must know: whose weights it holds, by digest, and how input is
prepared. It is written only after it was seen to compute what the detector computes.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from clipwarden.models.detector import Detector, detector_class
from clipwarden.models.graphs import NAMES, Graph, graph_of
from clipwarden.models.hub.foreign import readable
from clipwarden.models.hub.install import told
from clipwarden.models.runtime import OnnxNetwork
from clipwarden.models.tracing import onnx_bytes, prove, torchscript_bytes
from clipwarden.models.weights import WeightFile, file_digest, verified, weights_table
from clipwarden.shared.errors import ConfigError

FACTS: Final = "facts.json"
"""The extra file of a TorchScript export that holds what ONNX has as metadata."""


def main(argv: Sequence[str]) -> int:
    """Write the file and say where. Raises WorkerFault if the weights do not fit, ConfigError for wrong options."""
    options = _parser().parse_args(argv)
    form = FORMATS[options.format]
    out = options.out or Path(options.name + form.suffix)
    if out.exists():
        raise ConfigError(f"{out} is there already; choose another place by --out")
    with _weights(options.name, options.weights, options.option) as weights:
        detector = detector_class(options.name).load(weights, "cpu")
    graph = graph_of(options.name, detector)
    written = form.write(graph, facts_of(detector, weights, graph))
    try:
        out.write_bytes(written)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from error
    print(f"{out} written, {len(written):,} bytes")
    return 0


def facts_of(detector: Detector, weights: WeightFile, graph: Graph) -> dict[str, str]:
    """What travels with the file; ports are JSON, with a word for each axis of any length."""
    entry = weights_table()[detector.spec.name]
    facts = {
        "detector": detector.spec.name,
        "version": detector.spec.version,
        "weights": weights.digest,
        "licence": entry.licence,
        "source": entry.source,
        "inputs": json.dumps([asdict(port) for port in graph.inputs]),
        "output": json.dumps(asdict(graph.output)),
    }
    return facts if weights.backbone is None else {**facts, "backbone": weights.backbone.digest}


def as_onnx(graph: Graph, facts: Mapping[str, str]) -> bytes:
    """An ONNX file with `facts` as its metadata. Raises WorkerFault if it does not compute as the network does."""
    try:
        import onnx
    except ImportError as error:
        raise ConfigError("exporting to ONNX needs onnx and onnxruntime: pip install onnx onnxruntime") from error
    model = onnx.load_model_from_string(onnx_bytes(graph))
    model.producer_name = "clipwarden"
    onnx.helper.set_model_props(model, dict(facts))
    written: bytes = model.SerializeToString()
    prove(graph, OnnxNetwork(written))
    return written


def as_torchscript(graph: Graph, facts: Mapping[str, str]) -> bytes:
    """A TorchScript file with `facts` as JSON in an extra file. Raises WorkerFault as `as_onnx`."""
    return torchscript_bytes(graph, {FACTS: json.dumps(dict(facts))})


@dataclass(frozen=True, slots=True)
class _Format:
    suffix: str
    write: Callable[[Graph, Mapping[str, str]], bytes]


FORMATS: Final[Mapping[str, _Format]] = {
    "onnx": _Format(".onnx", as_onnx),
    "torchscript": _Format(".pt", as_torchscript),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("clipwarden models export", description=__doc__)
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--format", choices=FORMATS, default="onnx")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: NAME.onnx or NAME.pt in this folder")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights to take in place of the installed ones")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="what the file of --weights does not say"
    )
    return parser


@contextmanager
def _weights(name: str, path: Path | None, given: Sequence[str]) -> Iterator[WeightFile]:
    if path is None:
        if given:
            raise ConfigError("--option says of a file what it does not say itself: name the file by --weights")
        yield verified(name)
        return
    entry = weights_table()[name]
    options = {**entry.options, **told(name, entry, given)}
    backbone = options.get("backbone")
    with readable(path, entry.companions) as file:
        yield WeightFile(file, file_digest(path), options, verified(backbone) if backbone else None)
