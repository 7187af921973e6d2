"""Weights come from a hub whole, checked and wanted, or not at all."""

import fcntl
import hashlib
import os
import shlex
import shutil
from io import BytesIO

import pytest
import torch
from huggingface_hub import constants

from clipwarden.models.detector import detector_class
from clipwarden.models.pipeline import local_detectors
from clipwarden.models.weights import HubSource, brought, file_digest, state_of, verified, weights_table
from clipwarden.shared.cli import main
from clipwarden.shared.contracts import Branch, DetectorState
from tests.networks import clip_adapter, write_vit_config, write_weights
from tests.unit.hub.conftest import COMMIT

REPO = "dima806/deepfake_vs_real_image_detection"
ADAPTERS = "Arko007/deepfake-detector-dfd-sota"


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A tiny ViT as the hub's own library lays it out."""
    path = write_weights("frame_vit", tmp_path_factory.mktemp("vit")).path
    return {name: path.with_name(name).read_bytes() for name in ("model.safetensors", "config.json")}


@pytest.fixture
def served(hub, vit):
    hub.repos[REPO] = dict(vit)
    return hub


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pull(name, *more):
    return main(["models", "pull", name, *more])


def pins(files):
    return [word for content in files.values() for word in ("--digest", digest(content))]


def ready(name):
    return state_of(weights_table()[name]) is DetectorState.READY


def content_requests(hub):
    return [(path, wanted) for method, path, wanted in hub.asked if method == "GET" and "/cdn/" in path]


def test_pinned_files_are_fetched_and_the_detector_is_ready(served, vit, store, capsys):
    assert pull("frame_vit", "--revision", COMMIT, *pins(vit)) == 0
    said = capsys.readouterr().out
    size = len(vit["model.safetensors"])
    assert f"model.safetensors: {size:,} bytes" in said
    assert "licence: Apache-2.0" in said
    assert said.index("licence:") < said.index("bytes to fetch") < said.index("frame_vit is ready")
    entry = weights_table()["frame_vit"]
    assert (entry.origin, entry.original) == (f"{REPO}@{COMMIT}", digest(vit["model.safetensors"]))
    assert entry.sha256 in {d.weights for d in local_detectors(Branch.VISUAL) if d.name == "frame_vit"}
    detector_class("frame_vit").load(verified("frame_vit"), "cpu")
    assert main(["models", "verify"]) == 0
    assert list((store / "downloads").iterdir()) == []


def test_files_that_nobody_pinned_are_not_read_until_somebody_does(served, vit, capsys):
    served.repos[REPO]["config.json"] = b"not even json"
    assert pull("frame_vit") == 1
    said = capsys.readouterr().out
    assert digest(vit["model.safetensors"]) in said
    assert not ready("frame_vit")


def test_the_command_that_is_printed_installs_what_was_fetched_without_asking_again(served, vit, capsys):
    assert pull("frame_vit") == 1
    (words,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  clipwarden ")]
    served.asked.clear()
    assert main(shlex.split(words)[1:]) == 0
    assert ready("frame_vit")
    assert served.asked == []
    assert pull("frame_vit", "--revision", COMMIT) == 0
    assert "installed already" in capsys.readouterr().out


def test_digests_in_the_manifest_need_no_word_of_the_user(served, vit, monkeypatch):
    entry = weights_table()["frame_vit"]
    held = {name: digest(content) for name, content in vit.items()}
    source = HubSource(repo=REPO, file="model.safetensors", revision=COMMIT, digests=held)
    monkeypatch.setitem(weights_table(), "frame_vit", entry.model_copy(update={"hub": source}))
    assert pull("frame_vit") == 0
    assert ready("frame_vit")


def test_a_download_that_was_cut_off_goes_on_where_it_ended(served, vit, monkeypatch, capsys):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)  # what a cut may cost
    half = 100 * 4096
    served.faults = [half, 503]
    assert pull("frame_vit", *pins(vit)) == 2
    assert "goes on where it ended" in capsys.readouterr().err
    assert not ready("frame_vit")
    served.asked.clear()
    assert pull("frame_vit", *pins(vit)) == 0
    assert [wanted for _, wanted in content_requests(served)] == [f"bytes={half}-"]
    assert served.sent_bytes == sum(map(len, vit.values()))
    assert verified("frame_vit").digest == digest(vit["model.safetensors"])


def test_a_file_that_came_damaged_is_fetched_anew(served, vit, capsys):
    served.damaged = True
    assert pull("frame_vit", *pins(vit)) == 2
    assert "model.safetensors came damaged" in capsys.readouterr().err
    served.damaged = False
    assert pull("frame_vit", *pins(vit)) == 0
    assert ready("frame_vit")


def test_two_commands_do_not_write_one_file(served, vit, store, capsys):
    part = store / "downloads" / REPO.replace("/", "--") / COMMIT / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    with part.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert pull("frame_vit", *pins(vit)) == 2
    assert "being fetched by another command" in capsys.readouterr().err
    assert part.read_bytes() == b""


@pytest.mark.parametrize("changed", ["model.safetensors", "config.json"])
def test_another_file_than_the_pinned_one_is_deleted(served, vit, store, changed, capsys):
    served.repos[REPO][changed] = vit[changed][:-1] + b"!"
    assert pull("frame_vit", *pins(vit)) == 2
    assert f"{changed} is sha256:" in capsys.readouterr().err
    assert not ready("frame_vit")
    assert [path for path in store.rglob("*") if path.suffix in {".safetensors", ".json"}] == []


def test_labels_in_the_other_order_are_refused(served, vit, tmp_path, store, capsys):
    write_vit_config(tmp_path / "config.json", id2label={"0": "Fake", "1": "Real"})
    served.repos[REPO]["config.json"] = (tmp_path / "config.json").read_bytes()
    assert pull("frame_vit", *pins(served.repos[REPO])) == 2
    assert "labels must be" in capsys.readouterr().err
    assert not (store / "weights.toml").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no_such"], "there is no detector 'no_such'; there are"),
        (["../../frame_vit"], "there is no detector"),
        (["siglip_lstm"], "siglip_lstm is on no hub"),
        (["cqcc_cnn"], "has its weights already"),
        (["frame_vit", "--revision", "../../x"], "forty hexadecimal digits"),
        (["frame_vit", "--revision", "9" * 40], f"has no revision {'9' * 40}"),
        (["clip_adapter"], f"there is no {ADAPTERS} on"),
    ],
)
def test_what_cannot_be_pulled_is_said_in_a_sentence(served, words, sentence, capsys):
    assert pull(*words) == 2
    assert sentence in capsys.readouterr().err
    assert content_requests(served) == []


def test_a_file_that_the_repository_lacks_is_named(served, capsys):
    del served.repos[REPO]["config.json"]
    assert pull("frame_vit") == 2
    assert f"{REPO} on {served.url} has no file config.json" in capsys.readouterr().err
    assert content_requests(served) == []


def test_offline_says_what_is_missing_and_asks_nobody(served, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull("frame_vit") == 2
    assert f"model.safetensors of {REPO}" in capsys.readouterr().err
    assert served.asked == []


def test_offline_takes_what_the_hub_s_own_programs_fetched(served, vit, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "hub-cache" / f"models--{REPO.replace('/', '--')}"
    for name, content in vit.items():
        (place / "snapshots" / COMMIT).mkdir(parents=True, exist_ok=True)
        (place / "snapshots" / COMMIT / name).write_bytes(content)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    assert pull("frame_vit", *pins(vit)) == 0
    assert ready("frame_vit")
    assert served.asked == []
    assert (place / "snapshots" / COMMIT / "config.json").exists()


def test_an_endpoint_that_does_not_answer_is_named(monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert pull("frame_vit") == 2
    assert "did not come whole from http://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("commit", [None, "../../../../escaped", "main", "0" * 39])
def test_a_server_that_names_no_commit_is_no_hub(served, store, commit, tmp_path, capsys):
    served.commit = commit
    assert pull("frame_vit") == 2
    assert served.url in capsys.readouterr().err
    assert content_requests(served) == []
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("name", ["../up.safetensors", "/etc/model", ".hidden", "a/b", "", "a\n"])
def test_a_file_name_cannot_lead_out_of_its_folder(name):
    with pytest.raises(ValueError, match="String should"):
        HubSource(repo=REPO, file=name)


def test_a_full_disk_is_noticed_before_anything_is_fetched(served, monkeypatch, capsys):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert pull("frame_vit") == 2
    assert "1,000 bytes left" in capsys.readouterr().err
    assert content_requests(served) == []


class _Attack:
    def __reduce__(self):
        return os.mkdir, (os.environ["ATTACKED"],)


def _checkpoint(network, **more):
    """What a training program saves."""
    saved = BytesIO()
    torch.save({"model_state_dict": network.state_dict(), "epoch": 3, **more}, saved)
    return saved.getvalue()


def test_a_pickled_checkpoint_is_kept_as_safetensors_with_its_first_digest(hub, store):
    hub.repos[ADAPTERS] = {"pytorch_model.bin": _checkpoint(clip_adapter())}
    assert pull("clip_adapter", *pins(hub.repos[ADAPTERS])) == 0
    entry, kept = weights_table()["clip_adapter"], verified("clip_adapter")
    assert kept.path.suffix == ".safetensors"
    assert entry.original == digest(hub.repos[ADAPTERS]["pytorch_model.bin"])
    assert kept.digest == file_digest(kept.path) != entry.original
    assert brought().parent in kept.path.parents
    assert [path.name for path in store.rglob("*.bin")] == []


@pytest.mark.parametrize("trusted", [False, True])
def test_a_checkpoint_that_runs_code_never_does(hub, tmp_path, monkeypatch, trusted, capsys):
    monkeypatch.setenv("ATTACKED", str(tmp_path / "attacked"))
    hub.repos[ADAPTERS] = {"pytorch_model.bin": _checkpoint(torch.nn.Linear(2, 2), evil=_Attack())}
    assert pull("clip_adapter", *(pins(hub.repos[ADAPTERS]) if trusted else [])) == (2 if trusted else 1)
    assert ("mkdir, which is not on the list" in capsys.readouterr().err) == trusted
    assert not (tmp_path / "attacked").exists()
    assert not ready("clip_adapter")
