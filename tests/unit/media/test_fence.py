import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import FrameNeed, MediaKind, MediaProbe, SamplingPlan, SoundPlan, ViewPlan
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MEBIBYTE, MediaLimits
from tests import media

NEED = FrameNeed(view="frame", count=512, size_px=64)


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits()) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that one pass yielded."""

    frames: tuple[NDArray[np.uint8], ...]
    frame_indices: list[int]
    times_s: list[float]
    wave: NDArray[np.int16]


def read(fence: Fence, path: Path, *indices: int, audio_seconds: float = 0.0) -> tuple[MediaProbe, Seen]:
    sounds = (SoundPlan(sample_rate_hz=16_000, spans=((0.0, audio_seconds),)),) if audio_seconds else ()
    plan = SamplingPlan(views=(ViewPlan(need=NEED, frame_indices=indices),) if indices else (), sounds=sounds)
    with fence.open(path) as opened:
        shots = [(shot.image.copy(), shot.index, shot.time_s) for shot in opened.read(plan)]
        images, places, times = zip(*shots, strict=True) if shots else ((), (), ())
        wave = opened.sounds[16_000].wave.copy() if opened.sounds else np.zeros(0, np.int16)
        return opened.probe, Seen(images, list(places), list(times), wave)


def test_a_clip_is_probed_by_its_packets(fence: Fence, talking_head: Path) -> None:
    probe = fence.probe(talking_head)
    assert (probe.kind, probe.width, probe.height, probe.frames) == (MediaKind.VIDEO, 320, 320, 75)
    assert (probe.video_codec, probe.audio_codec, probe.sample_rate_hz) == ("h264", "aac", 16_000)
    assert probe.duration_s == pytest.approx(3, abs=0.1)
    assert probe.fps == pytest.approx(25, abs=0.1)
    assert probe.size_bytes == talking_head.stat().st_size


def test_planned_frames_come_in_order_with_their_times(fence: Fence, faceless_clip: Path) -> None:
    _, decoded = read(fence, faceless_clip, 0, 7, 20, 49)
    assert decoded.frame_indices == [0, 7, 20, 49]
    assert decoded.times_s == pytest.approx([0, 0.28, 0.8, 1.96], abs=0.001)
    brightness = [float(frame.mean()) for frame in decoded.frames]
    assert brightness == pytest.approx([40, 47, 60, 89], abs=1.5)
    assert all(frame.shape == (240, 320, 3) for frame in decoded.frames)


def test_frames_equal_those_of_a_plain_reader(fence: Fence, talking_head: Path) -> None:
    import av

    with av.open(str(talking_head)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    _, decoded = read(fence, talking_head, *range(75))
    assert len(decoded.frames) == len(plain)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(decoded.frames, plain, strict=True))


def test_an_index_beyond_the_end_is_dropped(fence: Fence, faceless_clip: Path) -> None:
    _, decoded = read(fence, faceless_clip, 48, 49, 50, 400)
    assert decoded.frame_indices == [48, 49]


def test_sound_is_mono_16_khz_and_bounded_by_the_plan(fence: Fence, talking_head: Path) -> None:
    _, whole = read(fence, talking_head, audio_seconds=60)
    _, part = read(fence, talking_head, audio_seconds=1.5)
    assert len(whole.wave) == pytest.approx(48_000, abs=2048)
    assert len(part.wave) == 24_000
    assert np.array_equal(part.wave, whole.wave[:24_000])


def test_lossless_sound_arrives_sample_by_sample(fence: Fence, wav: Path, flac: Path) -> None:
    for path in (wav, flac):
        probe, decoded = read(fence, path, audio_seconds=60)
        assert (probe.kind, probe.has_video, probe.frames) == (MediaKind.AUDIO, False, 0)
        assert np.array_equal(decoded.wave, media.speech(3))


def test_sound_is_resampled_without_a_shift(fence: Fence, tmp_path: Path) -> None:
    path = media.write_sound(tmp_path / "speech.ogg", media.speech(2))
    _, decoded = read(fence, path, audio_seconds=60)
    ours, original = decoded.wave[:32_000].astype(float), media.speech(2).astype(float)[: len(decoded.wave)]
    lags = range(-40, 41)
    match = [float(np.dot(np.roll(ours, -lag), original[: len(ours)])) for lag in lags]
    assert abs(lags[int(np.argmax(match))]) <= 8


def test_a_rotated_clip_is_shown_upright(fence: Fence, rotated_clip: Path) -> None:
    probe, decoded = read(fence, rotated_clip, 0)
    assert (probe.width, probe.height, probe.rotation_deg) == (240, 320, 90)
    upright = decoded.frames[0].astype(float)
    assert upright.shape == (320, 240, 3)
    # Coded, brightness rises to the right; turned counter-clockwise, to the top.
    assert upright[:40].mean() > upright[-40:].mean() + 20


def test_a_photograph_is_turned_as_exif_says(fence: Fence, tmp_path: Path) -> None:
    path = media.write_still(tmp_path / "phone.jpg", next(media.scenery(1)))
    plain = path.read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    path.write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    probe, decoded = read(fence, path, 0)
    assert (probe.width, probe.height) == (240, 320)
    # Orientation 6 is shown turned clockwise: what was on the right is at the bottom.
    assert decoded.frames[0][-40:].mean() > decoded.frames[0][:40].mean() + 20


def test_uneven_time_stamps_are_kept(fence: Fence, uneven_clip: Path) -> None:
    probe, decoded = read(fence, uneven_clip, 0, 9, 10, 19)
    assert probe.frames == 20
    assert decoded.times_s == pytest.approx([0, 0.36, 0.6, 0.96], abs=0.002)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_a_still_is_one_frame_without_duration(fence: Fence, tmp_path: Path, suffix: str) -> None:
    picture = next(media.scenery(1))
    probe, decoded = read(fence, media.write_still(tmp_path / f"x{suffix}", picture), 0)
    assert (probe.kind, probe.frames, probe.duration_s) == (MediaKind.IMAGE, 1, 0.0)
    assert np.abs(decoded.frames[0].astype(int) - picture.astype(int)).mean() < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm", ".avi"])
def test_each_container_is_read(fence: Fence, tmp_path: Path, suffix: str) -> None:
    path = media.write_clip(tmp_path / f"x{suffix}", media.scenery(20), media.speech(0.8))
    probe, decoded = read(fence, path, 0, 10, 19, audio_seconds=5)
    assert (probe.kind, probe.frames, probe.has_audio) == (MediaKind.VIDEO, 20, True)
    assert [round(float(f.mean())) for f in decoded.frames] == pytest.approx([40, 50, 59], abs=2)
    assert len(decoded.wave) == pytest.approx(0.8 * 16_000, rel=0.15)


def test_a_name_means_nothing(fence: Fence, talking_head: Path, tmp_path: Path) -> None:
    disguised = tmp_path / "readme.txt"
    disguised.write_bytes(talking_head.read_bytes())
    assert fence.probe(disguised).kind is MediaKind.VIDEO


def test_large_pictures_are_handed_out_smaller(fence: Fence, tmp_path: Path) -> None:
    picture = np.zeros((4320, 7680, 3), np.uint8)
    picture[:, 3840:] = 200
    probe, decoded = read(fence, media.write_still(tmp_path / "8k.jpg", picture), 0)
    assert (probe.width, probe.height) == (7680, 4320)
    assert decoded.frames[0].shape == (2304, 4096, 3)
    assert decoded.frames[0][:, 2100:].mean() == pytest.approx(200, abs=2)


def test_cover_art_is_not_video(fence: Fence, tmp_path: Path) -> None:
    import av

    path = tmp_path / "song.mp3"
    cover = av.open(str(media.write_still(tmp_path / "cover.jpg", next(media.scenery(1)))))
    with av.open(str(path), "w") as out, cover:
        sound = out.add_stream("libmp3lame", rate=16_000, layout="mono")
        art = out.add_stream_from_template(cover.streams.video[0])
        art.disposition = av.stream.Disposition.attached_pic
        packet = next(cover.demux(video=0))
        packet.stream = art
        out.mux(packet)
        media._encode_sound(out, sound, media.speech(2))
    probe = fence.probe(path)
    assert (probe.kind, probe.has_video) == (MediaKind.AUDIO, False)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("empty", RejectCode.EMPTY_FILE),
        ("text named .mp4", RejectCode.NOT_MEDIA),
        ("zeros", RejectCode.NOT_MEDIA),
        ("truncated", RejectCode.TRUNCATED),
        ("three hours in 2 kB", RejectCode.TRUNCATED),
        ("zero frames", RejectCode.NO_STREAMS),
        ("30000 x 30000", RejectCode.TOO_MANY_PIXELS),
        ("HLS", RejectCode.UNSUPPORTED_FORMAT),
        ("concat", RejectCode.UNSUPPORTED_FORMAT),
        ("SDP", RejectCode.UNSUPPORTED_FORMAT),
        ("DASH", RejectCode.UNSUPPORTED_FORMAT),
        ("GIF", RejectCode.UNSUPPORTED_FORMAT),
    ],
)
def test_a_bad_file_has_a_code(fence: Fence, hostile: dict[str, Path], name: str, code: RejectCode) -> None:
    with pytest.raises(MediaError) as caught:
        fence.probe(hostile[name])
    assert caught.value.code is code


def test_a_clip_cut_behind_its_index_is_judged_by_what_is_left(fence: Fence, tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "x.mp4", media.faces(75), options={"movflags": "faststart"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 4 // 5])
    probe, decoded = read(fence, path, *range(75))
    assert 37 <= probe.frames < 75
    assert 30 <= len(decoded.frames) <= probe.frames
    path.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(MediaError) as caught:
        fence.probe(path)
    assert caught.value.code is RejectCode.TRUNCATED


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (MediaLimits(max_duration_s=1), RejectCode.TOO_LONG),
        (MediaLimits(max_frames=74), RejectCode.TOO_MANY_FRAMES),
        (MediaLimits(max_pixels=320 * 319), RejectCode.TOO_MANY_PIXELS),
    ],
)
def test_each_limit_has_its_code(talking_head: Path, limits: MediaLimits, code: RejectCode) -> None:
    with Fence(limits) as fence, pytest.raises(MediaError) as caught:
        fence.probe(talking_head)
    assert caught.value.code is code


def refused(limits: MediaLimits, path: Path, *indices: int) -> MediaError:
    """The error of reading `path` within `limits`; the fence must survive it."""
    with Fence(limits) as fence:
        with pytest.raises(MediaError) as caught:
            read(fence, path, *indices)
        fence.limits = MediaLimits()
        assert read(fence, path)[1].frames == ()
    return caught.value


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = media.write_still(tmp_path / "8k.png", np.zeros((8000, 8000, 3), np.uint8))
    assert refused(MediaLimits(memory_bytes=250 * MEBIBYTE), path, 0).code is RejectCode.DECODE_LIMIT


def test_pictures_fit_into_the_ring(talking_head: Path) -> None:
    with Fence(MediaLimits(ring_bytes=100_000)) as fence:
        _, decoded = read(fence, talking_head, *range(75))
    assert {frame.shape for frame in decoded.frames} == {(182, 182, 3)}
    assert len(decoded.frames) == 75


def test_cpu_time_is_bounded(tmp_path: Path) -> None:
    path = media.write_slow_clip(tmp_path / "slow.mkv", frames=60)
    error = refused(MediaLimits(cpu_s=1, threads=1), path, *range(60))
    assert (error.code, error.detail) == (RejectCode.DECODE_LIMIT, "SIGXCPU")


def test_waiting_is_bounded(talking_head: Path) -> None:
    error = refused(MediaLimits(wall_s=0.001), talking_head, *range(75))
    assert (error.code, error.detail) == (RejectCode.DECODE_LIMIT, "SIGALRM")


def test_memory_does_not_grow_with_duration(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "long.mp4", media.scenery(2000, 64, 64), media.speech(80))
    with Fence(replace(MediaLimits(), memory_bytes=128 * MEBIBYTE)) as fence:
        probe, decoded = read(fence, path, 0, 1999)
    assert (probe.frames, len(decoded.frames)) == (2000, 2)


def test_a_killed_zygote_is_replaced(talking_head: Path) -> None:
    with Fence(MediaLimits()) as fence:
        first = fence.probe(talking_head)
        assert fence._zygote is not None
        os.kill(fence._zygote._process.pid, signal.SIGKILL)
        fence._zygote._process.wait()
        assert fence.probe(talking_head) == first


def test_the_zygote_ends_with_its_parent(talking_head: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from clipwarden.shared.media.fence import Fence; from clipwarden.shared.media.limits import MediaLimits\n"
        "fence = Fence(MediaLimits()); fence.probe(Path(sys.argv[1]))\n"
        "print(fence._zygote._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(talking_head)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        zygote = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        status = Path(f"/proc/{zygote}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        signal.sigtimedwait([], 0.05)
    pytest.fail("the zygote outlived its parent")


def test_a_confined_child_can_open_nothing() -> None:
    code = (
        "import errno, mmap, os, socket\n"
        "from clipwarden.shared.media import zygote; from clipwarden.shared.media.limits import MediaLimits\n"
        "null = os.open('/dev/null', os.O_RDWR); memory = os.memfd_create('x'); os.ftruncate(memory, 4096)\n"
        "zygote._isolate([null, memory, null], os.pipe()[1])\n"
        "mapped = mmap.mmap(zygote._MEMORY_FD, 4096)\n"
        "zygote._confine(MediaLimits())\n"
        "refused = 0\n"
        "for attempt in (lambda: open('/etc/hostname'), socket.socket, os.pipe, lambda: os.dup(3)):\n"
        "    try: attempt()\n"
        "    except OSError as error: refused += error.errno in {errno.EMFILE, errno.EPERM}\n"
        "os._exit(refused)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 4


def test_flipped_bits_never_break_the_fence(fence: Fence, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    whole = media.write_clip(tmp_path / "whole.mp4", media.faces(20, 160, 160), media.speech(0.8)).read_bytes()
    path, outcomes = tmp_path / "flipped.mp4", []
    for _ in range(30):
        content = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(content), rng.integers(1, 60))
        content[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
        path.write_bytes(content.tobytes())
        try:
            outcomes.append(type(read(fence, path, *range(0, 20, 4), audio_seconds=5)[1]))
        except MediaError as error:
            outcomes.append(type(error))
    assert set(outcomes) <= {Seen, MediaError}
    path.write_bytes(whole)
    assert fence.probe(path).frames == 20
