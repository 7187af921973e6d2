"""Nothing in a file crashes or hangs the worker, reaches another file or an address, or leaves a process behind."""

import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.media.seccomp import ARCHITECTURES
from tests.hostile import CASES
from tests.hostile_kit import ANALYSED
from tests.ordeal import Ordeal, children


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeal]:
    with Ordeal(tmp_path_factory.mktemp("ordeal")) as prepared:
        yield prepared


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_ends_with_its_code(name: str, ordeal: Ordeal) -> None:
    assert ordeal.outcome(CASES[name].make(ordeal.kit)) in CASES[name].may


def test_the_corpus_is_large_and_ends_in_every_way() -> None:
    assert len(CASES) >= 40
    chosen = {code for case in CASES.values() if len(case.may) < len(RejectCode) for code in case.may}
    assert chosen == {ANALYSED, *(code for code in RejectCode if not code.startswith("fetch_"))}


def test_the_bait_tells_when_it_is_taken(ordeal: Ordeal) -> None:
    ordeal.kit.bait.canary.read_text()
    with socket.create_connection(("127.0.0.1", ordeal.kit.bait.port)):
        assert ordeal.kit.bait.taken() == ["file", "address"]
    assert ordeal.kit.bait.taken() == []


@pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="no filter is known for this machine")
def test_the_decoder_runs_behind_the_filter(ordeal: Ordeal) -> None:
    with ordeal.fence.open(ordeal.kit.paths["mp4"]):
        zygote = ordeal.fence._zygote
        assert zygote is not None
        (decoder,) = children(zygote._process.pid)
        status = Path(f"/proc/{decoder}/status").read_text().split()
    assert status[status.index("Seccomp:") + 1] == "2"
    assert status[status.index("NoNewPrivs:") + 1] == "1"


def test_a_process_left_behind_would_be_seen() -> None:
    with subprocess.Popen(["sleep", "60"]) as left:
        assert left.pid in children(os.getpid())
        left.kill()
    assert left.pid not in children(os.getpid())
