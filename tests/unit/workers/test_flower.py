"""Flower starts behind a password or not at all, and shows of a task what it is about."""

from types import SimpleNamespace

import pytest

from clipwarden.shared.errors import ConfigError
from clipwarden.workers.flower import main, only_id

ANALYSIS = "019f2b1c-4a00-7c3e-9d2a-0f6c1b7e5a10"


def test_without_a_password_it_does_not_start(monkeypatch):
    monkeypatch.setenv("CLIPWARDEN_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.delenv("CLIPWARDEN_FLOWER_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="CLIPWARDEN_FLOWER_PASSWORD is not set"):
        main([])


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (f"('{ANALYSIS}',)", ANALYSIS),
        (f'["{ANALYSIS}"]', ANALYSIS),
        ("('<script>alert(1)</script>',)", ""),
        (None, ""),
    ],
)
def test_a_task_shows_the_id_it_is_about_and_nothing_else(sent, shown):
    task = only_id(SimpleNamespace(args=sent, kwargs="{'secret': 1}"))
    assert (task.args, task.kwargs) == (shown, "")
