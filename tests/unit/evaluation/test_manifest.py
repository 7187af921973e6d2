"""A manifest as people write them: every spelling is understood, or refused with the row."""

from pathlib import Path

import pytest

from clipwarden.models.training.evaluation.manifest import is_fake, once, read_manifest, resolved
from clipwarden.shared.errors import ConfigError


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    "label", ["real", "REAL", " Real ", "0", "0.0", "bonafide", "bona-fide", "Bona Fide", "genuine"]
)
def test_real_is_understood_however_it_is_spelled(label: str) -> None:
    assert is_fake(label) is False


@pytest.mark.parametrize("label", ["fake", "FAKE", "1", "1.0", "spoof", "Spoofed", "deep-fake", "synthetic"])
def test_fake_is_understood_however_it_is_spelled(label: str) -> None:
    assert is_fake(label) is True


def test_an_unknown_label_is_refused_with_its_row(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", "path,label\na.mp4,real\nb.mp4,maybe\n")
    with pytest.raises(ConfigError, match=r"line 3 \(b\.mp4\): label 'maybe' is not known; real is spelled"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column path"),
        ("path,label\n", "holds no rows"),
        ("path,verdict\na.mp4,real\n", "no column label; it has path, verdict"),
        ("path,label\n,real\n", "line 2: the row names no file"),
        ('path,label\n"a.mp4,real\n', "cannot be read as a manifest"),
    ],
)
def test_what_is_no_manifest_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_manifest(written(tmp_path / "m.csv", text))


def test_a_missing_or_binary_manifest_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00path")
    for path in (tmp_path / "gone.csv", tmp_path / "b.csv"):
        with pytest.raises(ConfigError, match="cannot be read as a manifest"):
            read_manifest(path)


def test_headings_of_other_manifests_are_understood(tmp_path: Path) -> None:
    text = "\ufeffFile,Class,system,speaker,orig_codec,source_repo\nx/a.flac,1,Piper,-,mp3,site\n"
    (item,) = read_manifest(written(tmp_path / "m.csv", text))
    assert (item.path, item.fake, item.generator, item.identity) == ("x/a.flac", True, "Piper", "")
    assert (item.codec, item.source, item.row) == ("mp3", "site", 2)
    assert resolved(tmp_path / "m.csv", item) == tmp_path / "x/a.flac"


def test_a_channel_called_none_is_a_channel(tmp_path: Path) -> None:
    (item,) = read_manifest(written(tmp_path / "m.csv", "path,label,channel,generator\na.wav,real,none,none\n"))
    assert (item.channel, item.generator) == ("none", "")


def test_related_items_share_a_group(tmp_path: Path) -> None:
    rows = "a,fake,g1,maker,site\nb,fake,,maker,site\nc,real,,none,site\nd,real,,,\n"
    items = read_manifest(written(tmp_path / "m.csv", "path,label,group,generator,source\n" + rows))
    assert [item.group for item in items] == ["g1", "maker", "site", "d"]


def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    rows = "a.mp4,real,AA\n./a.mp4,fake,bb\nb.mp4,real,aa\nc.mp4,real,\nd.mp4,real,\n"
    kept, again = once(read_manifest(written(tmp_path / "m.csv", "path,label,sha256\n" + rows)))
    assert [item.path for item in kept] == ["a.mp4", "c.mp4", "d.mp4"]
    assert [(d.item.row, d.first.row, d.contradicts) for d in again] == [(3, 2, True), (4, 2, False)]
