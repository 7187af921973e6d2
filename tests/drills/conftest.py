"""One system for all drills of a session, and the record of how long each took to recover.

`make drill` sets CLIPWARDEN_DRILL_ROUNDS: each drill runs that often, and the promised time to recover is asserted.
"""

import json
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipwarden.shared.local.child import until
from tests import media
from tests.drills.drill import ROUNDS, Drill
from tests.drills.table import lines
from tests.drills.yard import READY_TIMEOUT_S, Yard
from tests.listeners import Listener, listening

OUT = Path("build/drills.json")
RECOVERED: dict[str, list[float]] = defaultdict(list)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "round_of_drill" in metafunc.fixturenames:
        once = metafunc.definition.get_closest_marker("long")
        metafunc.parametrize("round_of_drill", range(1 if once else max(1, ROUNDS)), ids=lambda n: f"round {n + 1}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    drill = item.funcargs.get("drill")
    if ROUNDS and call.when == "call" and report.passed and isinstance(drill, Drill) and drill.recovered:
        record(item.originalname.removeprefix("test_").replace("_", " "), drill.recovered[-1])
    return report


def record(name: str, recovered_s: float) -> None:
    """Note a round that passed; what earlier sessions measured of other drills stays."""
    RECOVERED[name].append(recovered_s)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(OUT.read_text("utf-8")) if OUT.exists() else {}
    OUT.write_text(json.dumps(earlier | RECOVERED, indent=1) + "\n", "utf-8")


def pytest_sessionfinish() -> None:
    if ROUNDS and RECOVERED:
        print("", *lines(RECOVERED), f"{OUT} written", sep="\n")


def solid(colour: tuple[int, int, int], count: int = 10) -> Iterator[NDArray[np.uint8]]:
    return (np.full((64, 64, 3), colour, np.uint8) for _ in range(count))


@pytest.fixture(scope="session")
def clip(media_dir: Path) -> Path:
    """One second of grey with speech: every branch applies, and nothing in it costs anything."""
    return media.write_clip(media_dir / "grey.mp4", solid((90, 90, 90)), media.speech(1), fps=10)


@pytest.fixture(scope="session")
def red_clip(media_dir: Path) -> Path:
    """A clip that orders may single out."""
    return media.write_clip(media_dir / "red.mp4", solid((220, 20, 20)), media.speech(1), fps=10)


@pytest.fixture(scope="session")
def world() -> Iterator[Listener]:
    """A server that the system may fetch files from and make callbacks to."""
    with listening() as listener:
        yield listener


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory, world: Listener, clip: Path) -> Iterator[Yard]:
    made = Yard(tmp_path_factory.mktemp("yard"), world.port)
    try:
        made.open()
        first = Drill(made, clip)
        first.submit()
        first.assert_nothing_lost()
        yield made
    finally:
        made.close()


@pytest.fixture
def drill(yard: Yard, clip: Path, round_of_drill: int) -> Iterator[Drill]:
    assert until(yard.ready, READY_TIMEOUT_S)
    assert yard.surprises == []
    made = Drill(yard, clip)
    yield made
    yard.order()
    yard.surprises.clear()
