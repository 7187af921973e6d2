"""A set lists every row of its manifest, made or left out, goes on where it stopped, and mixes no folds."""

import csv

import pytest

from clipwarden.models.training.forge.forge_set import SetPlan, forge_set
from clipwarden.models.training.forge.forging import Item
from clipwarden.shared.cli import main
from clipwarden.shared.errors import ConfigError

PLAN = SetPlan(("duplicate", "foreign_speech", "time_shift"), per_clip=3, seed=1, wash_share=1.0)
HEAD = "path,label,identity,fold,licence\n"


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


class Stop(Exception):  # noqa: N818
    """Raised in the middle of a set."""


@pytest.fixture(scope="module")
def rows():
    return [
        "own.mp4,real,ann,0,CC0",
        "other.mp4, Bonafide,bob,0,CC0",
        "mute.mp4,real,cid,1,CC0",
        "dumb.mp4,fake,dan,1,MIT",
        "own.mp4,real,ann,0,CC0",
        "gone.mp4,real,,0,",
        "own2.mp4,maybe,,0,",
    ]


@pytest.fixture(scope="module")
def manifest(folder, rows):
    path = folder / "manifest.csv"
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def whole(manifest, forge, tmp_path_factory):
    """The set of the manifest, and the counts."""
    made = tmp_path_factory.mktemp("whole")
    return made, forge_set(manifest, made, forge, PLAN)


@pytest.fixture
def small(folder, tmp_path):
    """A manifest with the rows given, beside the clips."""

    def written(*rows):
        path = folder / f"{tmp_path.name}.csv"
        path.write_text(HEAD + "".join(f"{row}\n" for row in rows))
        return path

    return written


def test_every_row_is_made_or_left_out_with_a_reason(whole):
    folder, counts = whole
    items, left = table(folder / "items.csv"), table(folder / "left_out.csv")
    assert counts == {"rows": 7, "items": len(items), "left_out": len(left)}
    made = {(r["source"], r["recipe"]): r for r in items}
    assert set(made) == {
        *((clip, r) for clip in ("own.mp4", "other.mp4") for r in ("untouched", *PLAN.recipes)),
        *(("mute.mp4", r) for r in ("untouched", "duplicate")),
        ("dumb.mp4", "untouched"),
    }
    reasons = {r["source"]: r["reason"] for r in left}
    assert reasons["own.mp4"] == "an earlier row has the same path"
    assert reasons["own2.mp4"] == "its label is neither real nor fake"
    assert "No such file" in reasons["gone.mp4"]
    assert len(left) == 3
    assert all((folder / r["path"]).is_file() for r in items)
    shifted = made["own.mp4", "time_shift"]
    assert [shifted[c] for c in ("label", "visual", "audio", "sync", "identity", "fold", "licence")] == [
        "fake", "real", "real", "fake", "ann", "0", "CC0",
    ]  # fmt: skip
    assert [made["dumb.mp4", "untouched"][c] for c in ("label", "visual", "audio")] == ["fake", "fake", "absent"]
    assert made["own.mp4", "foreign_speech"]["other"] == "other.mp4"


def test_all_items_of_a_clip_get_one_wash(whole):
    washes = {}
    for record in (whole[0] / "items").glob("*.mp4.json"):
        item = Item.model_validate_json(record.read_text())
        washes.setdefault(item.sources[0].name, []).append(item.wash)
    assert len(washes["own.mp4"]) == 4
    assert all(wash is not None and wash == group[0] for group in washes.values() for wash in group)


def test_a_stopped_set_goes_on_and_ends_like_an_unstopped_one(manifest, whole, forge, tmp_path):
    def stop_after_two(outcome, _rows):
        if outcome.row.path == "other.mp4":
            raise Stop

    with pytest.raises(Stop):
        forge_set(manifest, tmp_path / "set", forge, PLAN, stop_after_two)
    assert not (tmp_path / "set/items.csv").exists()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "set/items").iterdir()}
    forge_set(manifest, tmp_path / "set", forge, PLAN)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (tmp_path / "set/items.csv").read_text() == (whole[0] / "items.csv").read_text()
    assert all(
        (tmp_path / "set/items" / p.name).read_text() == p.read_text() for p in (whole[0] / "items").glob("*.json")
    )


def test_a_folder_with_another_set_is_refused(manifest, whole, forge):
    with pytest.raises(ConfigError, match="another configuration"):
        forge_set(manifest, whole[0], forge, SetPlan(("duplicate",)))


def test_clips_of_another_fold_or_the_same_person_are_never_mixed_in(small, forge, tmp_path):
    manifest = small("own.mp4,real,ann,0,", "other.mp4,real,bob,1,", "./other.mp4,real,ann,0,")
    forge_set(manifest, tmp_path / "set", forge, SetPlan(("foreign_speech",), wash_share=0.0))
    left = {r["source"]: r["reason"] for r in table(tmp_path / "set/left_out.csv")}
    assert "another clip with such sound" in left["own.mp4"]
    assert all(r["recipe"] == "untouched" for r in table(tmp_path / "set/items.csv"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("path,kind\na,b\n", "has no column label"), ("path,label\n", "has no row"), (None, "cannot be")],
)
def test_an_unusable_manifest_is_a_sentence(text, words, forge, tmp_path):
    if text is not None:
        (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        forge_set(tmp_path / "m.csv", tmp_path / "set", forge, PLAN)


def test_the_command_makes_one_clip_and_says_how_to_look_at_it(folder, tmp_path, capsys):
    out = tmp_path / "fake.mp4"
    assert main(["forge", str(folder / "own.mp4"), "--out", str(out), "--recipe", "freeze", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "freeze, seed 3: visual fake, audio real, sync fake" in said
    assert f"clipwarden analyze {out}" in said
    assert out.is_file()


def test_the_command_chooses_what_the_clip_allows(folder, tmp_path, capsys):
    assert main(["forge", str(folder / "own.mp4"), "--out", str(tmp_path / "fake.mp4"), "--seconds", "0.6"]) == 0
    assert "fake.mp4: puppet, seed 0: visual fake, audio fake, sync fake" in capsys.readouterr().out


def test_the_command_makes_a_set_of_a_manifest(small, tmp_path, capsys):
    assert main(["forge", str(small("dumb.mp4,real,,,")), "--out", str(tmp_path / "set"), "--recipe", "duplicate"]) == 0
    assert "2 items of 1 rows, 0 left out" in capsys.readouterr().out


def test_the_command_lists_the_recipes(capsys):
    assert main(["forge", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "face_swap" in shown
    assert "griffin_lim" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.mp4", "--out", "fake.mp4"], "gone.mp4 cannot be opened: No such file or directory"),
        (["own.mp4", "--out", "fake.mp4", "--recipe", "magic"], "there is no recipe 'magic'"),
        (["own.mp4", "--out", "fake.mp4", "--recipe", "face_swap"], "give one by --with"),
        (["mute.mp4", "--out", "fake.mp4", "--recipe", "lpc"], "lpc needs at least 0.5 s of sound"),
    ],
)
def test_what_cannot_be_made_is_a_sentence(arguments, words, folder, tmp_path, capsys):
    name, out, target, *rest = arguments
    assert main(["forge", str(folder / name), out, str(tmp_path / target), *rest]) == 2
    assert words in capsys.readouterr().err
