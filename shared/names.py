"""File names that others chose, made fit for display."""

import unicodedata

NAME_CHARACTERS = 255


def safe_name(raw: str) -> str:
    """The last segment of a client's file name, for display: no path, no control or direction characters, ≤ 255."""
    name = unicodedata.normalize("NFC", raw).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c for c in name if unicodedata.category(c)[0] != "C").strip(" .")
    if len(name) > NAME_CHARACTERS:
        stem, dot, suffix = name.rpartition(".")
        ending = dot + suffix if stem and len(suffix) < 16 else ""
        name = name[: NAME_CHARACTERS - len(ending)] + ending
    return name or "upload"
