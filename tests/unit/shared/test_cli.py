"""The command line knows its commands without loading them, and says in a sentence what is wrong."""

import pytest

from clipwarden.shared.cli import COMMANDS, command, main
from clipwarden.shared.errors import ConfigError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(name)(["--help"])
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_an_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyse"]) == 2
    assert "analyze" in capsys.readouterr().err


def test_an_error_of_ours_is_one_line_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: list[str]) -> int:
        raise ConfigError("set the thing")

    monkeypatch.setattr("clipwarden.shared.cli.command", lambda _: refuse)
    assert main(["db"]) == 2
    assert capsys.readouterr().err == "clipwarden: set the thing\n"
