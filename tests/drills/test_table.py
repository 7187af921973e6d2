"""The README's table of drills keeps what is not measured anew."""

from tests.drills.table import renewed

PAGE = """before
<!-- drills -->
| drill | rounds | recovered in s, median | worst |
|---|---|---|---|
| redis emptied | 10 | 1.0 | 2.0 |
| two sweepers | 10 | 3.0 | 4.0 |
<!-- /drills -->
after
"""


def test_rows_are_renewed_by_name_and_the_others_stay() -> None:
    page = renewed(PAGE, {"two sweepers": [5.0, 7.0], "a new one": [1.0]})
    assert page == PAGE.replace("| 10 | 3.0 | 4.0 |", "| 2 | 6.0 | 7.0 |\n| a new one | 1 | 1.0 | 1.0 |")
    assert renewed(page, {}) == page
