"""File names that others chose say nothing but a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipwarden.shared.names import NAME_CHARACTERS, safe_name


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\clip.mp4", "clip.mp4"),
        ("/abs/clip.mp4", "clip.mp4"),
        ("..", "upload"),
        ("", "upload"),
        ("dir/", "upload"),
        ("a\0b\r\nc.mp4", "abc.mp4"),
        ("\u202egpj.exe", "gpj.exe"),
        ("u\u0308ber 视频 🎬.mp4", "über 视频 🎬.mp4"),
        (" .hidden ", "hidden"),
        ("a" * 300 + ".mp4", "a" * 251 + ".mp4"),
        ("a" * 300, "a" * 255),
    ],
)
def test_a_file_name_is_reduced_to_a_safe_last_segment(raw: str, safe: str) -> None:
    assert safe_name(raw) == safe


@given(st.text())
def test_no_file_name_holds_a_path_or_control_characters(raw: str) -> None:
    name = safe_name(raw)

    assert 1 <= len(name) <= NAME_CHARACTERS
    assert not set(name) & {"/", "\\", "\0", "\n"}
    assert name not in {".", ".."}
    name.encode("utf-8")
