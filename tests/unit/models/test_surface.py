"""The documents' own examples, run against real files and seeded networks in the originals' layouts."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from clipwarden.models import MediaProcessingError, load_model
from clipwarden.models.surface import MODELS
from clipwarden.models.visual.siglip_lstm import SiglipLstm
from clipwarden.models.weights import WeightFile, weights_table
from clipwarden.shared.codes import RejectCode, SkipCode
from clipwarden.shared.errors import ClipwardenError, ConfigError
from tests import media
from tests.networks import made, pictures, siglip_lstm


class _Harmless:
    """No tensor."""


VERSIONS = {"V1": 0, "V3": 0, "V4": 24}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Plain state dicts, as the authors share them, by version; their scores move with what is seen."""
    folder = tmp_path_factory.mktemp("originals")
    paths = {version: folder / f"SigLip-LSTM-{version.lower()}.pth" for version in VERSIONS}
    for version, path in paths.items():
        network = siglip_lstm(VERSIONS[version])
        network.lstm.weight_ih_l0.data *= 20
        torch.save(network.state_dict(), path)
    return paths


@pytest.fixture(scope="module")
def brief_clip(media_dir):
    """Twenty pictures that have little in common, with sound."""
    return media.write_clip(media_dir / "brief.mp4", iter(pictures(20, 320, seed=30)), media.speech(1))


@pytest.fixture(scope="module")
def lipsync(tmp_path_factory):
    """LipFD from a small checkpoint as the authors save theirs."""
    path = tmp_path_factory.mktemp("originals") / "ckpt.pth"
    torch.save({"model": made("lipfd").state_dict(), "optimizer": {}, "total_steps": 100}, path)
    return load_model("LIPFD-V1", weights=path)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_siglip_lstm_example_runs(checkpoints, brief_clip, version, capsys):
    model = load_model("SIGLIP-LSTM", version=version, weights=checkpoints[version])
    model.eval()
    video_path = Path(brief_clip)
    result = model.predict(video_path)
    print(f"Prediction: {result['prediction']}")
    print(f"Confidence: {result['confidence']:.2%}")
    print(f"Frames Analyzed: {result['metadata']['frames_analyzed']}")
    if "temporal_metrics" in result["metadata"]:
        metrics = result["metadata"]["temporal_metrics"]
        print(f"Score Variance: {metrics['score_variance']:.4f}")
        print(f"Consistency: {metrics['consistency_score']:.2%}")
    said = capsys.readouterr().out
    assert re.match(r"Prediction: (FAKE|REAL)\nConfidence: \d+\.\d\d%\nFrames Analyzed: 20\n", said)
    assert ("Consistency: " in said) == (version != "V1")
    assert result["metadata"]["model_version"] == version
    assert result["metadata"]["video_duration"] == pytest.approx(1.0, abs=0.25)


def test_the_scores_are_those_of_the_file_s_own_frames(checkpoints, brief_clip):
    with av.open(str(brief_clip)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    shown = np.stack([np.asarray(frame.resize((224, 224), Image.Resampling.BICUBIC)) for frame in frames])
    detector = SiglipLstm.load(WeightFile(checkpoints["V4"], "sha256:0"), "cpu")
    result = load_model("SIGLIP-LSTM", weights=checkpoints["V4"]).predict(str(brief_clip))
    expected = detector.examine(shown)
    assert result["metadata"]["per_frame_scores"] == pytest.approx(expected.per_frame.tolist(), abs=5e-4)
    assert np.ptp(expected.per_frame) > 0.01
    likely = max(expected.probability, 1 - expected.probability)
    assert result["confidence"] == pytest.approx(likely, abs=1e-2)


def test_the_lipfd_example_runs(lipsync, talking_head, capsys):
    model, video_path = lipsync, Path(talking_head)
    result = model.analyze(media_path=str(video_path))
    print(f"Prediction: {result['prediction']}")
    print(f"Confidence: {result['confidence']:.2%}")
    print(f"Processing Time: {result['processing_time']:.2f}s")
    print(f"Windows Analyzed: {result['frames_analyzed']}")
    for pred in result["frame_predictions"]:
        print(f"  Window {pred['index']}: {pred['score']:.3f} ({pred['prediction']})")
    print(f"\nFinal Average Score: {result['metrics']['final_average_score']:.3f}")
    print(f"Window Scores: {result['metrics']['window_scores']}")
    window_scores = result["metrics"]["window_scores"]
    threshold = 0.7
    suspicious_windows = [i for i, score in enumerate(window_scores) if score > threshold]
    assert capsys.readouterr().out.count("  Window ") == result["frames_analyzed"] == len(window_scores) > 1
    assert result["processing_time"] > 0
    assert np.var(window_scores) > 0
    assert suspicious_windows == [p["index"] for p in result["frame_predictions"] if p["score"] > 0.7]
    average = sum(window_scores) / len(window_scores)
    assert result["metrics"]["final_average_score"] == pytest.approx(average)
    assert result["prediction"] == ("FAKE" if average >= 0.5 else "REAL")
    assert result["confidence"] == pytest.approx(max(average, 1 - average))
    assert [p["prediction"] for p in result["frame_predictions"]] == [
        "FAKE" if score >= 0.5 else "REAL" for score in window_scores
    ]


@pytest.mark.parametrize("kind", ["mute_clip", "still"])
def test_the_example_for_videos_without_audio_takes_its_branch(lipsync, kind, request):
    with pytest.raises(MediaProcessingError) as caught:
        lipsync.analyze(media_path=request.getfixturevalue(kind))
    assert "no audio track" in str(caught.value).lower()
    assert caught.value.code == SkipCode.NO_AUDIO


@pytest.mark.parametrize(("kind", "code"), [("silent_clip", SkipCode.SILENT_AUDIO), ("wav", SkipCode.NOT_APPLICABLE)])
def test_what_a_model_has_nothing_to_judge_in_is_an_error_with_its_code(lipsync, kind, code, request):
    with pytest.raises(MediaProcessingError) as caught:
        lipsync.analyze(media_path=request.getfixturevalue(kind))
    assert caught.value.code == code
    assert "no audio track" not in str(caught.value)


def test_a_bad_file_is_an_error_with_its_code_and_the_next_is_judged(checkpoints, hostile, still, brief_clip):
    model = load_model("SIGLIP-LSTM", weights=checkpoints["V4"])
    for path, code in (
        (hostile["empty"], RejectCode.EMPTY_FILE),
        (hostile["truncated"], RejectCode.TRUNCATED),
        (hostile["text named .mp4"], RejectCode.NOT_MEDIA),
        (still, SkipCode.TOO_FEW_FRAMES),
    ):
        with pytest.raises(MediaProcessingError) as caught:
            model.predict(path)
        assert caught.value.code == code
    with pytest.raises(FileNotFoundError):
        model.predict("nowhere.mp4")
    assert model.predict(brief_clip)["prediction"] in {"FAKE", "REAL"}


def test_a_processing_error_is_one_of_ours():
    assert issubclass(MediaProcessingError, ClipwardenError)


@pytest.mark.parametrize(("name", "version"), [("SIGLIP-LSTM", "V4"), ("LIPFD-V1", None)])
def test_without_weights_the_error_says_how_to_get_them(name, version):
    detector = MODELS[name.removesuffix("-V1")].detector
    with pytest.raises(ConfigError, match=re.escape(weights_table()[detector].obtain)):
        load_model(name, version=version)


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("SIGLIP-LSTM", "V2", "SIGLIP-LSTM has no version V2; there are V1, V3, V4"),
        ("SIGLIP-LSTM-V3", "V4", "SIGLIP-LSTM-V3 is not version V4"),
        ("LIPFD-V2", None, "LIPFD has no version V2; there are V1"),
        ("SIGLIP", None, "no model 'SIGLIP'; there are SIGLIP-LSTM, LIPFD"),
    ],
)
def test_an_unknown_name_or_version_is_refused(checkpoints, name, version, why):
    with pytest.raises(ConfigError, match=why):
        load_model(name, version=version, weights=checkpoints["V4"])


def test_the_version_may_end_the_name_and_is_held_against_the_file(checkpoints, brief_clip):
    named = load_model("SIGLIP-LSTM-V1", weights=checkpoints["V1"])
    assert named.predict(brief_clip)["metadata"]["model_version"] == "V1"
    with pytest.raises(ConfigError, match="its file is V4"):
        load_model("SIGLIP-LSTM", version="V3", weights=checkpoints["V4"])


def test_a_file_that_is_no_checkpoint_of_the_model_is_refused(tmp_path, wav):
    with pytest.raises(ConfigError, match=r"gone\.pth cannot be opened: No such file"):
        load_model("SIGLIP-LSTM", weights=tmp_path / "gone.pth")
    with pytest.raises(ConfigError, match=r"speech\.wav is refused: it is neither safetensors nor a PyTorch"):
        load_model("SIGLIP-LSTM", weights=wav)


def test_a_checkpoint_is_read_in_a_process_that_can_do_nothing_else(tmp_path, checkpoints, monkeypatch):
    """Even what this process would let pass: here a class that is on its allow-list."""
    torch.save({**torch.load(checkpoints["V4"], weights_only=True), "more": _Harmless()}, tmp_path / "odd.pth")
    with torch.serialization.safe_globals([_Harmless]), pytest.raises(ConfigError, match=r"it names \S*_Harmless"):
        load_model("SIGLIP-LSTM", weights=tmp_path / "odd.pth")


def test_the_decoder_ends_with_the_model(checkpoints, brief_clip):
    model = load_model("SIGLIP-LSTM", weights=checkpoints["V3"])
    model.predict(brief_clip)
    decoder = model._fence._zygote._process
    assert decoder.poll() is None
    del model
    gc.collect()
    assert decoder.poll() is not None


def test_naming_the_surface_imports_no_numbers():
    code = (
        "import sys, clipwarden.models as m; assert 'load_model' in m.__all__; "
        "print({'numpy', 'torch', 'cv2', 'av'} & set(sys.modules)); "
        "m.load_model; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["set()", "False"]
