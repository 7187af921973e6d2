"""A file that somebody brought is checked, converted and fitted before a worker may read it."""

import pwd
import tomllib

import pytest
import torch

from clipwarden.models.checkpoint import read_state, save_from
from clipwarden.models.detector import detector_class
from clipwarden.models.hub import install as installing
from clipwarden.models.hub.store import changed
from clipwarden.models.weights import bring, file_digest, state_of, verified, weights_path, weights_table
from clipwarden.shared.cli import main
from clipwarden.shared.contracts import DetectorState
from clipwarden.shared.errors import ConfigError, WorkerFault
from tests.networks import made, write_weights

AGREE = "--accept-licence"
TAKEN = (AGREE, "--option", "front=npr")
"""What tiny_gate wants of whoever brings its file."""


def install(*words):
    return main(["models", "install", *map(str, words)])


def ready(name):
    return state_of(weights_table()[name]) is DetectorState.READY


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A checkpoint as its authors save it: tensors of the network, behind what DataParallel puts before them."""
    path = tmp_path_factory.mktemp("originals") / "WildRF_Tiny_LaDeDa.pth"
    torch.save({f"module.{name}": tensor for name, tensor in made("tiny_gate").state_dict().items()}, path)
    return path


@pytest.fixture
def plain(tmp_path):
    """The same network as safetensors, which need no converting."""
    return write_weights("tiny_gate", tmp_path).path


def test_a_checkpoint_is_converted_and_loads_as_before(originals, store, capsys):
    assert install("tiny_gate", originals, "--option", "front=right_diag", AGREE) == 0
    said = capsys.readouterr().out
    assert "Yissum" in said
    assert "no commercial use" in said
    entry, kept = weights_table()["tiny_gate"], verified("tiny_gate")
    assert ready("tiny_gate")
    assert (entry.origin, entry.original) == (originals.name, file_digest(originals))
    assert dict(kept.options) == {"front": "right_diag", "scaling": "imagenet"}
    assert kept.path.is_relative_to(store)
    for name, tensor in made("tiny_gate").state_dict().items():
        torch.testing.assert_close(read_state(kept)[name], tensor, atol=0, rtol=0)
    detector_class("tiny_gate").load(kept, "cpu")


def test_terms_must_be_agreed_to(plain, capsys):
    assert install("tiny_gate", plain) == 2
    assert "--accept-licence" in capsys.readouterr().err
    assert not ready("tiny_gate")


def test_safetensors_are_kept_as_they_are(plain):
    assert install("tiny_gate", plain, *TAKEN) == 0
    entry = weights_table()["tiny_gate"]
    assert entry.sha256 == entry.original == file_digest(plain)


def test_what_lies_beside_the_file_is_installed_and_checked_with_it(tmp_path, capsys):
    source = write_weights("frame_vit", tmp_path).path
    assert install("frame_vit", source) == 0
    detector_class("frame_vit").load(verified("frame_vit"), "cpu")
    config = weights_path(weights_table()["frame_vit"]).with_name("config.json")
    assert weights_table()["frame_vit"].beside == {"config.json": file_digest(config)}
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    with pytest.raises(WorkerFault, match=r"config\.json is sha256:"):
        verified("frame_vit")
    source.with_name("config.json").unlink()
    assert install("frame_vit", source) == 2
    assert "config.json cannot be copied: No such file" in capsys.readouterr().err


def test_a_network_needs_the_weights_that_it_was_fitted_to(tmp_path, capsys):
    source = write_weights("temporal_bilstm", tmp_path).path
    assert install("temporal_bilstm", source) == 2
    assert "was fitted to embeddings of" in capsys.readouterr().err
    assert install("frame_resnet18", tmp_path / "frame_resnet18" / "model.safetensors") == 0
    assert install("temporal_bilstm", source) == 0
    assert ready("temporal_bilstm")


def test_a_network_needs_the_one_that_sees_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(installing, "state_of", lambda _: DetectorState.NO_WEIGHTS)
    assert install("temporal_bilstm", write_weights("temporal_bilstm", tmp_path).path) == 2
    assert "install weights for frame_resnet18 first" in capsys.readouterr().err


def test_a_file_that_does_not_name_its_backbone_is_taken_from_who_does(tmp_path, capsys):
    assert install("frame_resnet18", write_weights("frame_resnet18", tmp_path).path) == 0
    save_from(made("temporal_bilstm"), tmp_path / "silent.safetensors", {})
    words = ("temporal_bilstm", tmp_path / "silent.safetensors")
    assert install(*words) == 2
    assert "--option fitted_to=sha256:" in capsys.readouterr().err
    assert install(*words, "--option", f"fitted_to={verified('frame_resnet18').digest}") == 0
    assert ready("temporal_bilstm")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "neither safetensors nor a PyTorch checkpoint"),
        (b"PNG and so on", "neither safetensors nor a PyTorch checkpoint"),
        ("cut", "cannot be read"),
        ("other", "do not fit TinyNetwork: missing bn1.bias"),
        ("nan", "numbers that are not finite"),
        (None, "cannot be copied: No such file"),
    ],
)
def test_a_file_that_is_no_such_network_is_refused(tmp_path, plain, store, content, sentence, capsys):
    path = tmp_path / "given.bin"
    if content == "cut":
        path.write_bytes(plain.read_bytes()[:-9])
    elif content == "other":
        path = write_weights("av_sync_seed", tmp_path).path
    elif content == "nan":
        path.write_bytes(plain.read_bytes()[:-4] + b"\xff\xff\xff\xff")
    elif content is not None:
        path.write_bytes(content)
    assert install("tiny_gate", path, *TAKEN) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert path.name in error
    assert not ready("tiny_gate")
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no_such"], "there is no detector"),
        (["speech_stats_of_another"], "there is no detector"),
        (["cqcc_cnn"], "has its weights already"),
        (["tiny_gate", "--digest", f"sha256:{'0' * 64}", *TAKEN], f"not sha256:{'0' * 64}"),
        (["tiny_gate", AGREE], "needs --option front="),
        (["tiny_gate", "--option", "front", AGREE], "--option takes KEY=VALUE"),
        (["tiny_gate", "--option", "front=sideways", AGREE], "must name the filter"),
    ],
)
def test_what_cannot_be_installed_is_said_in_a_sentence(plain, words, sentence, capsys):
    name, *more = words
    assert install(name, plain, *more) == 2
    assert sentence in capsys.readouterr().err
    assert not ready("tiny_gate")


def test_another_file_takes_the_place_of_the_first_and_removing_leaves_nothing(plain, tmp_path, store):
    assert install("tiny_gate", plain, AGREE, "--option", "front=raw", "--option", "scaling=unit") == 0
    first = weights_path(weights_table()["tiny_gate"])
    changed_file = tmp_path / "second.safetensors"
    content = bytearray(plain.read_bytes())
    content[-1] ^= 0x80
    changed_file.write_bytes(content)
    assert install("tiny_gate", changed_file, *TAKEN) == 0
    assert verified("tiny_gate").digest == file_digest(changed_file)
    assert verified("tiny_gate").options == {"front": "npr", "scaling": "imagenet"}
    assert not first.exists()
    assert install("tiny_gate", "--remove") == 0
    assert install("tiny_gate", "--remove") == 2
    assert not ready("tiny_gate")
    assert list(store.rglob("*.safetensors")) == []


def test_verify_names_what_was_changed_or_is_gone(plain, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert install("tiny_gate", plain, *TAKEN) == 0
    assert main(["models", "verify"]) == 0
    assert {"tiny_gate", "cqcc_cnn", "forensic_mlp"} <= set(capsys.readouterr().out.split())
    path = weights_path(weights_table()["tiny_gate"])
    path.write_bytes(path.read_bytes() + b" ")
    assert main(["models", "verify", "cqcc_cnn"]) == 0
    assert main(["models", "verify", "cqcc_cnn", "tiny_gate"]) == 1
    assert "changed" in capsys.readouterr().out
    path.unlink()
    assert main(["models", "verify"]) == 1
    assert "gone" in capsys.readouterr().out
    assert main(["models", "verify", "lipfd"]) == 1
    assert "not installed" in capsys.readouterr().out
    assert main(["models", "verify", "no_such"]) == 2


def test_a_worker_reads_no_foreign_format_and_says_what_to_do(originals, tmp_path):
    manifest = tmp_path / "weights.toml"
    manifest.write_text(f'[tiny_gate]\nfile = "{originals}"\nsha256 = "{file_digest(originals)}"\n', "utf-8")
    bring(manifest)
    with pytest.raises(WorkerFault, match="run `clipwarden models install tiny_gate"):
        verified("tiny_gate")


def test_weights_go_beside_the_manifest_that_the_operator_names(plain, tmp_path):
    manifest = tmp_path / "fleet" / "weights.toml"
    told = ["models", "--weights", str(manifest)]
    assert main([*told, "verify"]) == 2
    assert main([*told, "install", "tiny_gate", str(plain), *TAKEN]) == 0
    assert verified("tiny_gate").path.is_relative_to(manifest.parent)
    bring(None)
    assert not ready("tiny_gate")
    assert main([*told, "verify", "tiny_gate"]) == 0


def test_an_entry_is_changed_and_the_rest_of_the_manifest_stays():
    before = (
        '# kept\n[a]\nfile = "a"\nsha256 = "1"\n[a.options]\nx = "1"\n\n[b]\nfile = "b"  # kept too\nsha256 = "2"\n'
    )
    after = changed(before, "a", {"file": 'new "a"', "sha256": "3", "options": {"a.b": "é\n"}})
    assert tomllib.loads(after)["a"] == {"file": 'new "a"', "sha256": "3", "options": {"a.b": "é\n"}}
    assert "# kept\n" in after
    assert 'file = "b"  # kept too' in after
    assert tomllib.loads(changed(after, "a", None)) == {"b": {"file": "b", "sha256": "2"}}
    assert changed("", "a", None) == "\n"


@pytest.mark.parametrize("text", ['a = { file = "x", sha256 = "1" }\n', '["a"]\nfile = "x"\n'])
def test_a_manifest_of_another_hand_is_not_spoilt(text):
    with pytest.raises(ConfigError, match="only a person can change"):
        changed(text, "a", {"file": "y"})


def test_a_user_without_a_home_has_no_weights_of_their_own(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", _nobody)
    bring(None)
    assert ready("cqcc_cnn")
    assert not ready("tiny_gate")


def _nobody(_uid):
    raise KeyError("no such user")


def test_a_store_that_cannot_be_written_is_named(plain, store, capsys):
    store.parent.mkdir(parents=True)
    store.write_text("a file where the folder should be", "utf-8")
    assert install("tiny_gate", plain, *TAKEN) == 2
    assert "cannot be kept in" in capsys.readouterr().err
    assert store.is_file()
