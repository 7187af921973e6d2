"""Media files as fixtures, made once per session; no test may change them."""

from pathlib import Path

import pytest

from tests import media


@pytest.fixture(scope="session")
def media_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def talking_head(media_dir: Path) -> Path:
    """Three seconds of a moving face with speech-like sound."""
    return media.write_clip(media_dir / "talking head.mp4", media.faces(75), media.speech(3))


@pytest.fixture(scope="session")
def silent_clip(media_dir: Path) -> Path:
    """A face and a sound track of digital silence."""
    return media.write_clip(media_dir / "silent.mp4", media.faces(50), media.silence(2))


@pytest.fixture(scope="session")
def mute_clip(media_dir: Path) -> Path:
    """A face and no sound track."""
    return media.write_clip(media_dir / "mute.mp4", media.faces(50))


@pytest.fixture(scope="session")
def faceless_clip(media_dir: Path) -> Path:
    """Scenery whose brightness tells the frame's number, with speech-like sound."""
    return media.write_clip(media_dir / "faceless.mp4", media.scenery(50), media.speech(2))


@pytest.fixture(scope="session")
def brief_clip(media_dir: Path) -> Path:
    """One second of scenery with speech-like sound: cheap to examine."""
    return media.write_clip(media_dir / "brief.mp4", media.scenery(10, 64, 64), media.speech(1), fps=10)


@pytest.fixture(scope="session")
def rotated_clip(media_dir: Path) -> Path:
    """As a phone held upright records: coded 320 x 240, shown 240 x 320."""
    return media.write_clip(media_dir / "rotated.mov", media.scenery(25), rotation_deg=90)


@pytest.fixture(scope="session")
def uneven_clip(media_dir: Path) -> Path:
    """Twenty frames at irregular times (variable frame rate)."""
    times = [i * 40 + (200 if i >= 10 else 0) for i in range(20)]
    return media.write_clip(media_dir / "uneven.mp4", media.scenery(20), times_ms=times)


@pytest.fixture(scope="session")
def still(media_dir: Path) -> Path:
    """A portrait as JPEG."""
    return media.write_still(media_dir / "still.jpg", next(media.faces(1)))


@pytest.fixture(scope="session")
def wav(media_dir: Path) -> Path:
    return media.write_sound(media_dir / "speech.wav", media.speech(3))


@pytest.fixture(scope="session")
def flac(media_dir: Path) -> Path:
    return media.write_sound(media_dir / "speech.flac", media.speech(3))


@pytest.fixture(scope="session")
def hostile(media_dir: Path, talking_head: Path) -> dict[str, Path]:
    """Files that cannot be analysed, by what is wrong with them."""
    folder = media_dir / "hostile"
    folder.mkdir()
    whole = talking_head.read_bytes()
    secret = folder / "secret.txt"
    secret.write_text("this file is named by playlists and must never be opened")
    texts = {
        "text named .mp4": b"This is not a film.\n" * 50,
        "empty": b"",
        "zeros": bytes(5000),
        "truncated": whole[: len(whole) // 2],
        "HLS": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode(),
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "DASH": f'<?xml version="1.0"?><MPD><BaseURL>file://{secret}</BaseURL></MPD>'.encode(),
        "GIF": b"GIF89a" + bytes(100),
    }
    files = {name: folder / f"{name}.mp4".replace(" ", "-") for name in texts}
    for name, path in files.items():
        path.write_bytes(texts[name])
    short = media.write_clip(folder / "short.mp4", media.scenery(1, 16, 16), options={"movflags": "faststart"})
    return files | {
        "zero frames": media.write_empty_track(folder / "zero-frames.mp4"),
        "three hours in 2 kB": media.claim_hours(short, 3),
        "30000 x 30000": media.write_png_header(folder / "bomb.png", 30_000, 30_000),
    }
