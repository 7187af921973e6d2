"""`clipwarden models pull NAME`: fetches a detector's weights from a hub, checks them, and installs them.

A file that neither weights.toml nor --digest pins is fetched and not read: its digest is printed for whoever decides.
Honours HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from clipwarden.models.hub.install import Offer, agree, install, installable, sha256
from clipwarden.models.hub.remote import COMMIT, Hub, RemoteFile
from clipwarden.models.weights import HubSource, WeightsEntry, brought, file_digest, verified, weights_path
from clipwarden.shared.errors import ConfigError

BRANCH: Final = "main"
ROOM: Final = 3
"""How often a download may have to fit on the disk: as it came, copied, converted."""


def main(argv: Sequence[str]) -> int:
    """Exit status 1 if the files came and nobody has pinned them."""
    parser = argparse.ArgumentParser("clipwarden models pull", description=__doc__)
    parser.add_argument("name", help="detector, as `clipwarden models list` names it")
    parser.add_argument("--revision", help="commit of the repository; by default the pinned one, or its newest")
    parser.add_argument(
        "--digest", type=sha256, action="append", default=[], help="sha256:... of a file that you trust; repeat"
    )
    parser.add_argument("--accept-licence", action="store_true", help="agree to the terms that are printed")
    given = parser.parse_args(argv)
    entry = installable(given.name)
    if entry.hub is None:
        raise ConfigError(f"{given.name} is on no hub. {entry.obtain} `clipwarden models install` takes a file")
    if given.revision is not None and not COMMIT.fullmatch(given.revision):
        raise ConfigError(f"--revision takes a whole commit, forty hexadecimal digits, not {given.revision!r}")
    revision = given.revision or entry.hub.revision or BRANCH
    if entry.origin == f"{entry.hub.repo}@{revision}" and weights_path(entry) is not None:
        print(f"{given.name} is installed already: {verified(given.name).digest}")
        return 0
    agree(given.name, entry, given.accept_licence)
    return _pull(given.name, entry, entry.hub, revision, frozenset(given.digest))


def _pull(name: str, entry: WeightsEntry, source: HubSource, revision: str, given: frozenset[str]) -> int:
    hub = Hub.of_environment(brought().parent / "downloads")
    first = hub.look(source.repo, revision, source.file)
    files = [first, *(hub.look(source.repo, first.commit, companion) for companion in entry.companions)]
    _announce(hub, files)
    paths = {file.name: hub.fetch(file) for file in files}
    digests = {file: file_digest(path) for file, path in paths.items()}
    pins = given | set(source.digests.values())
    if wrong := [f for f, digest in digests.items() if (given or f in source.digests) and digest not in pins]:
        for file in files:
            hub.drop(file)
        said = "; ".join(f"{file} is {digests[file]}" for file in wrong)
        raise ConfigError(f"{said}, which is not what is pinned: it was deleted, and nothing was installed")
    if not digests.keys() <= source.digests.keys() and not given:
        _ask_for_pins(name, first.commit, digests)
        return 1
    beside = {companion: paths[companion] for companion in entry.companions}
    install(name, Offer(paths[source.file], f"{source.repo}@{first.commit}", beside, pins=pins))
    for file in files:
        hub.drop(file)
    return 0


def _announce(hub: Hub, files: Sequence[RemoteFile]) -> None:
    """Say what is to come and how large it is. Raises ConfigError if the disk has no room for it."""
    missing = [file for file in files if file.here is None]
    for file in files:
        size = "size unknown" if file.size_bytes is None else f"{file.size_bytes:,} bytes"
        print(f"{file.repo}@{file.commit} {file.name}: {size}{', here already' if file.here else ''}")
    total = sum(file.size_bytes or 0 for file in files)
    print(f"{sum(file.size_bytes or 0 for file in missing):,} bytes to fetch from {hub.endpoint}")
    free = shutil.disk_usage(_existing(hub.downloads)).free
    if free < ROOM * total:
        raise ConfigError(f"{hub.downloads} is on a disk with {free:,} bytes left; {ROOM * total:,} are needed")


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _ask_for_pins(name: str, commit: str, digests: Mapping[str, str]) -> None:
    for file, digest in digests.items():
        print(f"{file} is {digest}")
    words = " ".join(f"--digest {digest}" for digest in digests.values())
    print(
        "Nobody has pinned these files, so nothing was read of them and nothing installed. Compare the digests with\n"
        f"what you trust, then run:\n  clipwarden models pull {name} --revision {commit} {words}"
    )
