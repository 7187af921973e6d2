"""A bad setting stops the process with the variable's name; good ones come from the environment alone."""

import pytest

from clipwarden.shared import cli
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import load_settings


def test_settings_come_from_prefixed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPWARDEN_LEASE_S", "90")
    monkeypatch.setenv("CLIPWARDEN_ALLOWED_HOSTS", "a.example, b.example")
    settings = load_settings()
    assert settings.lease_s == 90
    assert settings.allowed_hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLIPWARDEN_MAX_UPLOAD_BYTES", "-1"),
        ("CLIPWARDEN_DEVICE", "gpu"),
        ("CLIPWARDEN_PORT", "http"),
        ("CLIPWARDEN_LOG_LEVEL", "LOUD"),
        ("CLIPWARDEN_HEARTBEAT_S", "50"),
        ("CLIPWARDEN_ASSESS_SOFT_LIMIT_S", "400"),
        ("CLIPWARDEN_OUTBOUND_PRIVATE", "10.0.0.1/8"),
        ("CLIPWARDEN_OUTBOUND_PORTS", "80,https"),
    ],
)
def test_a_bad_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}"):
        load_settings()


COMMANDS = (
    ["serve"],
    ["worker", "visual"],
    ["worker", "notify"],
    ["sweep"],
    ["sweep", "--dry-run"],
    ["db", "upgrade"],
    ["pipeline", "publish"],
    ["keys", "list"],
    ["webhooks", "secret", "show"],
    ["up"],
    ["flower"],
)
BAD = {
    "CLIPWARDEN_REDIS_URL": ("amqp://me:secret@host", "redis://me:secret@host:x/0"),
    "CLIPWARDEN_DATABASE_URL": ("mysql://me:secret@host/db",),
    "CLIPWARDEN_WORKER_QUEUE": ("sideways",),
    "CLIPWARDEN_LEASE_S": ("-1", "soon"),
    "CLIPWARDEN_HEARTBEAT_S": ("50",),
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_every_process_that_starts_with_a_bad_setting_stops_and_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"clipwarden: {name}: ")
    assert "secret" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["worker", "sideways"], ["sweep", "--every", "soon"], ["sweep", "--every=-1"]])
def test_a_word_that_makes_no_sense_is_named(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert words[-1].rpartition("=")[2] in capsys.readouterr().err


def test_a_missing_setting_is_named_when_it_is_needed() -> None:
    with pytest.raises(ConfigError, match="CLIPWARDEN_DATABASE_URL"):
        load_settings().need("database_url")
