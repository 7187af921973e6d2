"""How the listener for changes comes back after its connection is lost."""

import psycopg2
import pytest

from clipwarden.api import changes
from clipwarden.api.changes import FIRST_PAUSE_S, Changes


class Script:
    """Connections that fail or are lost as it says, and the pauses in between."""

    def __init__(self, *connects: bool) -> None:
        self.connects, self.pauses = list(connects), []

    def connect(self, *_: object, **__: object) -> "Script":
        if self.connects.pop(0):
            return self
        raise psycopg2.OperationalError("no connection")

    def set_isolation_level(self, _: int) -> None:
        raise psycopg2.OperationalError("lost")

    def close(self) -> None:
        pass

    def is_set(self) -> bool:
        return not self.connects

    def wait(self, pause_s: float) -> None:
        self.pauses.append(pause_s)


def test_after_a_connection_the_first_pause_is_short_again(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(False, False, False, True, False)
    monkeypatch.setattr(psycopg2, "connect", script.connect)
    listener = Changes("postgresql://nowhere")
    monkeypatch.setattr(listener, "_ended", script)

    listener._run()

    assert script.pauses == [n * FIRST_PAUSE_S for n in (1, 2, 4, 1, 2)]
    assert changes.LONGEST_PAUSE_S > 8 * FIRST_PAUSE_S
