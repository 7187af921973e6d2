"""The README says what the code says: settings, codes and detectors are generated and compared line by line.

Run as a program, this file rewrites the generated parts.
"""

import re
import sys
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from clipwarden.api.problems import STATUS
from clipwarden.models.weights import distributed, state_of
from clipwarden.shared.cli import COMMANDS
from clipwarden.shared.codes import SENTENCES, FailCode, ProblemCode, RejectCode, SkipCode
from clipwarden.shared.contracts import Branch, DetectorState
from clipwarden.shared.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def settings_table():
    rows = [
        (f"`{PREFIX}{name.upper()}`", shown_default(name), field.description)
        for name, field in Settings.model_fields.items()
    ]
    return table(("variable", "default", "meaning"), rows)


def shown_default(name):
    field = Settings.model_fields[name]
    default = field.default_factory() if field.default is PydanticUndefined else field.default
    if default in (None, "", ()):
        return "none"
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default).replace(str(Path.home()), "~")
    return f"`{text}`"


def codes_table():
    kinds = {SkipCode: "skipped", RejectCode: "rejected", FailCode: "failed"}
    rows = [(f"`{code}`", kind, SENTENCES[code]) for enum, kind in kinds.items() for code in enum]
    rows += [(f"`{code}`", f"HTTP {STATUS[code]}", SENTENCES[code]) for code in ProblemCode]
    return table(("code", "kind", "what to do"), rows)


def detectors_table():
    entries = sorted(distributed().items(), key=lambda item: (list(Branch).index(item[1].branch), item[0]))
    rows = [
        (f"`{name}`", entry.branch, f"{entry.parameters:,}" if entry.parameters else "", f"`{state_of(entry)}`")
        for name, entry in entries
    ]
    return table(("detector", "branch", "parameters", "state"), rows)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


TABLES = {"settings": settings_table, "codes": codes_table, "detectors": detectors_table}


def part(text, name):
    """Lines between `<!-- name -->` and `<!-- /name -->`."""
    found = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, flags=re.DOTALL)
    assert len(found) == 1, f"README.md needs one part <!-- {name} --> … <!-- /{name} -->"
    return found[0].splitlines()


def rewrite():
    text = README.read_text("utf-8")
    for name, made in TABLES.items():
        body = "".join(f"{line}\n" for line in made())
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, body=body: f"{found[1]}{body}{found[2]}",
            text,
            flags=re.DOTALL,
        )
    README.write_text(text, "utf-8")


@pytest.fixture(scope="module")
def readme():
    return README.read_text("utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_the_table_says_what_the_code_says(readme, name):
    assert part(readme, name) == TABLES[name](), "run: .venv/bin/python tests/repo/test_readme.py"


def test_every_setting_has_a_meaning():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_detector_that_can_run_has_a_card():
    ready = [name for name, entry in distributed().items() if state_of(entry) is DetectorState.READY]
    assert [name for name in ready if not (ROOT / "models" / "cards" / f"{name}.md").is_file()] == []


def test_accuracy_is_stated_and_its_figures_are_those_of_the_cards(readme):
    rows = [line for line in part(readme, "accuracy") if "](models/cards/" in line]
    assert len(rows) > 5, "the accuracy part has no figures"
    assert [row for row in rows if not told_by_its_card(row)] == []


def told_by_its_card(row):
    """Whether the very card that a row links to has its figure with its interval."""
    figure, card = re.search(r"\| (\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]) \| \[card\]\((.*?)\) \|$", row).groups()
    return figure in (ROOT / card).read_text("utf-8")


def test_commands_that_the_documents_name_exist(readme):
    documents = readme + (ROOT / "deploy" / "README.md").read_text("utf-8")
    named = set(re.findall(r"clipwarden ([a-z]+)", documents))
    assert named - set(COMMANDS) == set()
    assert {"analyze", "up", "submit", "sweep", "worker", "doctor"} <= named


def test_targets_that_the_readme_names_exist(readme):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", "\n".join(code_spans(readme)))) <= targets


def test_files_that_the_documents_link_to_exist():
    for document in (README, ROOT / "deploy" / "README.md", ROOT / "CHANGELOG.md"):
        links = re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8"))
        local = [link for link in links if not link.startswith("https://")]
        assert [link for link in local if not (document.parent / link).exists()] == []


def code_spans(text):
    return re.findall(r"`([^`\n]+)`", text) + re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(rewrite())
