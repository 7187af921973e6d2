"""Real files changed at random are analysed or refused, and the fence goes on; `tests/long` tries many more."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.mutation import mutants
from tests.ordeal import Ordeal


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeal]:
    with Ordeal(tmp_path_factory.mktemp("ordeal")) as prepared:
        yield prepared


def test_changed_files_are_analysed_or_refused_and_never_break_the_fence(ordeal: Ordeal) -> None:
    ends = set[str]()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(content=mutants(ordeal.kit.whole))
    def try_one(content: bytes) -> None:
        ends.add(ordeal.outcome(content))

    try_one()
    assert len(ends) > 3
