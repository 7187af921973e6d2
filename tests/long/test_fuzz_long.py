"""Many real files changed at random, other ones each time. FUZZ_EXAMPLES says how many; 4,000 take some minutes."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.mutation import mutants
from tests.ordeal import Ordeal

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4000"))


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeal]:
    with Ordeal(tmp_path_factory.mktemp("ordeal")) as prepared:
        yield prepared


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_no_changed_file_breaks_the_fence(ordeal: Ordeal) -> None:
    ends = Counter[str]()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck)
    )
    @given(content=mutants(ordeal.kit.whole))
    def try_one(content: bytes) -> None:
        ends[ordeal.outcome(content)] += 1

    try_one()
    print(dict(ends.most_common()))
    assert len(ends) > 3
