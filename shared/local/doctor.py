"""`clipwarden doctor`: what this machine has, what is missing, and how to get it."""

import argparse
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console

from clipwarden.shared.blobs import open_blobs
from clipwarden.shared.errors import ClipwardenError
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.local.stack import command_line
from clipwarden.shared.local.valkey import EmbeddedValkey, free_port
from clipwarden.shared.settings import Settings, load_settings

PURPOSES = {
    "": "the command line",
    "api": "the gateway and its client",
    "worker": "the detectors",
    "s3": "blobs in a bucket",
    "local": "embedded servers and the sample clip",
    "train": "training, measuring and forging",
    "voices": "neural voices for forging",
    "export": "networks as ONNX",
    "ops": "the queue monitor",
    "trace": "traces",
    "dev": "tests and checks",
}
DEMO_EXTRAS = {"", "api", "worker", "local"}
DISK_NEEDED_GB = 1.0
LISTING_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `needed`: the demo cannot run without it. `remedy` is empty if nothing is to be done."""

    name: str
    ok: bool
    needed: bool
    found: str
    remedy: str = ""


def main(argv: Sequence[str]) -> int:
    """Exit status 1 if something that the demo needs is missing."""
    parser = argparse.ArgumentParser(prog="clipwarden doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    as_json = parser.parse_args(argv).json
    console = Console(highlight=False, soft_wrap=True)
    checks: list[Check] = []
    for check in examine(load_settings()):
        checks.append(check)
        if not as_json:
            _show(console, check)
    stopped_by = [check.name for check in checks if check.needed and not check.ok]
    if as_json:
        console.out(json.dumps([asdict(check) for check in checks]))
    elif stopped_by:
        console.print(f"\nThe demo cannot run yet: {', '.join(stopped_by)}", markup=False)
    else:
        console.print("\nEverything the demo needs is here")
    return 1 if stopped_by else 0


def examine(settings: Settings) -> Iterator[Check]:
    """Every check in turn; those that start something take a second each."""
    yield check_python()
    yield from check_packages()
    yield check_torch()
    yield check_server("Redis server", settings.redis_url, EmbeddedValkey)
    yield check_server("PostgreSQL", settings.database_url, EmbeddedPostgres)
    yield check_blobs(settings)
    yield check_disk(settings.state_dir)
    yield check_port(settings)
    yield check_weights()


def check_python() -> Check:
    right = sys.version_info[:2] == (3, 11)
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("Python", right, True, found, "" if right else "make the environment with Python 3.11")


def check_packages() -> Iterator[Check]:
    """One check per extra, "" being what every installation has."""
    wanted = [Requirement(text) for text in requires("clipwarden") or []]
    for extra, purpose in PURPOSES.items():
        lacking = [lack for requirement in wanted if _belongs(requirement, extra) for lack in _lack(requirement)]
        name = f"packages for {purpose}"
        remedy = f"pip install 'clipwarden[{extra}]', or `make bootstrap` in a checkout" if extra else "make bootstrap"
        found = f"missing: {', '.join(lacking)}" if lacking else "installed"
        yield Check(name, not lacking, extra in DEMO_EXTRAS, found, remedy if lacking else "")


def _belongs(requirement: Requirement, extra: str) -> bool:
    """Whether this extra brings the requirement on this machine and nothing without the extra does."""
    if requirement.marker is None:
        return not extra
    fits = requirement.marker.evaluate({"extra": extra})
    return fits and (not extra or not requirement.marker.evaluate({"extra": ""}))


def _lack(requirement: Requirement) -> list[str]:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return [str(requirement).partition(";")[0].strip()]
    fits = requirement.specifier.contains(found, prereleases=True)
    return [] if fits else [f"{requirement.name}{requirement.specifier} (here {found})"]


def check_torch() -> Check:
    """Which device detectors run on with the setting `auto`."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return Check("torch", False, True, f"does not load: {error}", "pip install torch==2.13.0")
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    return Check("torch", True, True, f"{torch.__version__} on {device}")


def check_server(name: str, url: str, make: Callable[[Path], EmbeddedPostgres | EmbeddedValkey]) -> Check:
    """Start the embedded server on empty data and stop it; a server of one's own is only named."""
    if url:
        return Check(name, True, True, "the settings name one, none is started here")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clipwarden-", ignore_cleanup_errors=True) as directory:
        try:
            with make(Path(directory)):
                return Check(name, True, True, f"starts here in {time.monotonic() - began:.1f} s")
        except ClipwardenError as error:
            return Check(name, False, True, "does not start", str(error))


def check_blobs(settings: Settings) -> Check:
    """Whether a bucket that the settings name answers; the demo uses a directory."""
    if not settings.blob_url:
        return Check("blob store", True, False, f"the directory {settings.blobs}")
    try:
        blobs = open_blobs(settings)
        store_id = blobs.store_id()
    except ClipwardenError as error:
        return Check("blob store", False, False, f"{settings.blob_url} cannot be used", str(error))
    found = f"{blobs.place} answers, {f'store id {store_id}' if store_id else 'no store id yet'}"
    return Check("blob store", True, False, found, "" if store_id else "clipwarden db upgrade")


def check_disk(state_dir: Path) -> Check:
    place = next(path for path in (state_dir, *state_dir.absolute().parents) if path.exists())
    free_gb = shutil.disk_usage(place).free / 1e9
    enough = free_gb >= DISK_NEEDED_GB
    remedy = "" if enough else f"free {DISK_NEEDED_GB:g} GB, or set CLIPWARDEN_STATE_DIR to a larger disk"
    return Check("disk", enough, True, f"{free_gb:.1f} GB free for {state_dir}", remedy)


def check_port(settings: Settings) -> Check:
    free = free_port(settings.port, settings.host) == settings.port or not settings.port
    found = f"{settings.port} is {'free' if free else 'taken'}"
    return Check("port", free, False, found, "" if free else "nothing to do: the gateway takes another one")


def check_weights() -> Check:
    """Which detectors can run, asked of the command that knows."""
    try:
        answer = subprocess.run(
            [*command_line(), "models", "list", "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=LISTING_TIMEOUT_S,
        )
        detectors = json.loads(answer.stdout) if answer.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        return Check("weights", False, True, f"`clipwarden models list` failed: {error}", "make bootstrap")
    if detectors is None:
        reason = answer.stderr.strip().rpartition("\n")[2]
        return Check("weights", False, True, f"`clipwarden models list` failed: {reason}", "make bootstrap")
    ready = [each["name"] for each in detectors if each["state"] == "ready"]
    found = f"{len(ready)} of {len(detectors)} detectors ready: {', '.join(ready) or 'none'}"
    remedy = "" if len(ready) == len(detectors) else "`clipwarden models list` says how to get the others"
    return Check("weights", bool(ready), True, found, remedy)


def _show(console: Console, check: Check) -> None:
    mark = "ok" if check.ok else "missing" if check.needed else "absent"
    console.print(f"{mark:<8} {check.name}: {check.found}", markup=False)
    if check.remedy:
        console.print(f"         → {check.remedy}", markup=False)
