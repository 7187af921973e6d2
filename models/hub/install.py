"""`clipwarden models install NAME FILE`: takes over a weights file that somebody brought.

The file is copied, checked, converted where it is no safetensors, fitted to the detector's network, and then kept.
"""

import argparse
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.hub.foreign import convert, is_safetensors
from clipwarden.models.hub.store import keep, remove, staged
from clipwarden.models.weights import (
    WeightFile,
    WeightsEntry,
    distributed,
    file_digest,
    state_of,
    verified,
    weights_table,
)
from clipwarden.shared.contracts import DetectorState
from clipwarden.shared.errors import ConfigError, WorkerFault

WEIGHTS: Final = "model.safetensors"
LARGEST_COMPANION: Final = 1024 * 1024
_ARRIVED: Final = ".arrived"


@dataclass(frozen=True, slots=True)
class Offer:
    """A file for a detector, those that come with it by their names, and where they are from.

    `pins` are the digests that they may have; None if whoever brings them vouches for them.
    """

    file: Path
    origin: str
    companions: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    pins: Collection[str] | None = None


def main(argv: Sequence[str]) -> int:
    """Install one file, or with --remove take away what was installed."""
    parser = _parser()
    given = parser.parse_args(argv)
    if given.remove == (given.file is not None):
        parser.error("give a file, or --remove")
    return _remove(given.name) if given.remove else _take(given)


def sha256(text: str) -> str:
    """A digest as a person types it, in our form; for argparse."""
    if not re.fullmatch("[0-9a-f]{64}", digits := text.lower().removeprefix("sha256:")):
        raise argparse.ArgumentTypeError(f"a SHA-256 digest has 64 hexadecimal digits, not {text!r}")
    return f"sha256:{digits}"


def installable(name: str) -> WeightsEntry:
    """The detector's entry. Raises ConfigError if it is none, cannot run, or has weights that it takes part by."""
    if name not in weights_table():
        raise ConfigError(f"there is no detector {name!r}; there are {', '.join(weights_table())}")
    entry = weights_table()[name]
    if name not in DETECTORS:
        raise ConfigError(f"{name}: {entry.obtain}")
    if entry.file is not None and entry.origin is None and not entry.standby:
        raise ConfigError(f"{name} has its weights already, from the distribution or a manifest of yours: {entry.file}")
    return entry


def agree(name: str, entry: WeightsEntry, accepted: bool) -> None:
    """Show the licence. Raises ConfigError if its terms must be agreed to and were not."""
    print(f"{name}: {entry.source}\nlicence: {entry.licence}")
    if entry.consent is not None:
        print(f"terms: {entry.consent}")
        if not accepted:
            raise ConfigError(f"nothing was installed: give --accept-licence if you agree to the terms of {name}")


def told(name: str, entry: WeightsEntry, given: Sequence[str]) -> dict[str, str]:
    """Options by name from KEY=VALUE. Raises ConfigError for another form, and without one that the entry asks for."""
    pairs = [text.partition("=") for text in given]
    if bad := [key for key, separator, _ in pairs if not (key and separator)]:
        raise ConfigError(f"--option takes KEY=VALUE, not {bad[0]!r}")
    options = {key: value for key, _, value in pairs}
    if silent := [key for key in entry.asked if key not in options]:
        raise ConfigError(f"{name} needs --option {silent[0]}=..., which its file does not say. {entry.obtain}")
    return options


def install(name: str, offer: Offer) -> None:
    """Check, convert, fit and keep. Raises ConfigError if the file is not the one pinned, or not this detector's."""
    with staged() as folder:
        arrived, original = _copied(offer.file, folder / _ARRIVED, offer.pins)
        beside = {}
        for companion, path in offer.companions.items():
            if path.is_file() and path.stat().st_size > LARGEST_COMPANION:
                raise ConfigError(f"{path} is larger than {LARGEST_COMPANION} bytes")
            beside[companion] = _copied(path, folder / companion, offer.pins)[1]
        weights = folder / WEIGHTS
        if is_safetensors(arrived):
            arrived.rename(weights)
        else:
            convert(arrived, weights, offer.file.name)
            arrived.unlink()
        digest, options = file_digest(weights), {**distributed()[name].options, **offer.options}
        _fit(name, WeightFile(weights, digest, options, _backbone(name, options)), offer.file.name)
        told = {"file": WEIGHTS, "sha256": digest, "origin": offer.origin, "original": original}
        keep(name, folder, {**told, "options": options, "beside": beside})
    print(f"{name} is ready: {digest}")
    print("`clipwarden pipeline publish` makes it part of new analyses; restart the workers of its queue after that")


def _copied(source: Path, target: Path, pins: Collection[str] | None) -> tuple[Path, str]:
    """Copy a file, so that what is checked is what is used, and return the copy and its digest."""
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise ConfigError(f"{source} cannot be copied: {error.strerror}") from error
    digest = file_digest(target)
    if pins is not None and digest not in pins:
        raise ConfigError(f"{source.name} is {digest}, not {' or '.join(sorted(pins))}; nothing was installed")
    return target, digest


def _fit(name: str, weights: WeightFile, file: str) -> None:
    try:
        detector_class(name).load(weights, "cpu")
    except WorkerFault as error:
        raise ConfigError(f"{file} cannot be installed as {name}: {error}") from error


def _backbone(name: str, options: Mapping[str, str]) -> WeightFile | None:
    backbone = options.get("backbone")
    if backbone is None:
        return None
    if backbone not in weights_table() or state_of(weights_table()[backbone]) is DetectorState.NO_WEIGHTS:
        raise ConfigError(f"{name} reads what {backbone} sees: install weights for {backbone} first")
    return verified(backbone)


def _digest_of(path: Path) -> str:
    """The digest of a file that is there; a missing one is reported where it is read."""
    return file_digest(path) if path.is_file() else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("clipwarden models install", description=__doc__)
    parser.add_argument("name", help="detector, as `clipwarden models list` names it")
    parser.add_argument("file", type=Path, nargs="?", help="checkpoint; what belongs to it lies beside it")
    parser.add_argument("--digest", type=sha256, help="sha256:... that the file must have")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="what the file does not say of itself"
    )
    parser.add_argument("--accept-licence", action="store_true", help="agree to the terms that are printed")
    parser.add_argument("--remove", action="store_true", help="delete the installed weights instead")
    return parser


def _remove(name: str) -> int:
    if installable(name).origin is None:
        raise ConfigError(f"{name} has no installed weights")
    remove(name)
    print(f"the installed weights of {name} are gone")
    return 0


def _take(given: argparse.Namespace) -> int:
    entry = installable(given.name)
    agree(given.name, entry, given.accept_licence)
    options = told(given.name, entry, given.option)
    beside = {name: given.file.parent / name for name in entry.companions}
    pins = {given.digest, *map(_digest_of, beside.values())} if given.digest else None
    install(given.name, Offer(given.file, given.file.name, beside, options, pins))
    return 0
