"""Rules that hold for every notebook as it is committed. `make test` also runs them all, with nbval."""

from __future__ import annotations

import html
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from nanolab.expect import bands

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NAMES = (
    "00_start_here", "01_tokenizer", "02_model", "03_base", "04_mid", "05_sft", "06_rl", "07_evaluate",
    "08_scale", "99_reference",
)  # fmt: skip
FOUND = sorted(FOLDER.glob("*.ipynb"))
MOST_LINES, MOST_BYTES, FEWEST_COMPARED = 10, 500_000, 3
MOST_MINUTES, MOST_WAITING = 45, 6

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
BASE64 = re.compile(r"base64,[A-Za-z0-9+/=\s]+")
MACHINE = {
    "a path of this machine": re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|var|opt|mnt)/\w|\b[A-Z]:\\\\?Users"),
    "a network address": re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\blocalhost\b"),
}  # fmt: skip


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def code_of(path: Path) -> str:
    return "\n".join(cell.source for cell in code_cells(path))


def is_compared(cell: Any) -> bool:
    return "nbval-ignore-output" not in cell.metadata.get("tags", [])


def outputs(path: Path) -> list[tuple[int, str, str]]:
    """`(cell, kind, text)` of everything stored as output, without the pictures' bytes."""
    found = []
    for number, cell in enumerate(read(path).cells):
        for output in cell.get("outputs", []):
            if "text" in output:
                found.append((number, output.get("name", "stdout"), output["text"]))
            for kind, content in output.get("data", {}).items():
                text = content if isinstance(content, str) else json.dumps(content)
                found.append((number, kind, "" if kind == "image/png" else BASE64.sub("base64,", text)))
    return found


def pictures_without_words(markup: str) -> list[str]:
    """The opening tags of pictures in HTML or SVG that have no text alternative."""
    silent = []
    for match in re.finditer(r"<(img|svg)\b[^>]*>", markup):
        label = re.search(r'\b(?:alt|aria-label)="([^"]*)"', match[0])
        title = re.match(r"\s*<title>([^<]+)</title>", markup[match.end() :])
        hidden = 'aria-hidden="true"' in match[0]
        if not hidden and not (label and html.unescape(label[1]).strip()) and not title:
            silent.append(match[0][:120])
    return silent


every_notebook = pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)


def test_the_course_is_complete():
    assert [path.stem for path in FOUND] == list(NAMES)


@every_notebook
def test_a_cell_has_at_most_ten_lines_of_code(path):
    for cell in code_cells(path):
        lines = [
            line for line in cell.source.split("\n") if line.strip() and not line.strip().startswith("#")
        ]
        assert len(lines) <= MOST_LINES, f"{len(lines)} lines:\n{cell.source}"


@pytest.mark.parametrize(
    "path", [*FOUND, *sorted((ROOT / "solutions").glob("*.ipynb"))], ids=lambda path: path.stem
)
def test_no_placeholder_stands_for_a_paragraph(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"^[A-Z]{4,}$|\bFIXME\b|\bTBD\b|lorem ipsum", cell.source, re.MULTILINE), (
                cell.source
            )


@every_notebook
def test_a_notebook_is_small_enough_to_be_shown_on_the_web(path):
    assert path.stat().st_size <= MOST_BYTES


@every_notebook
def test_some_cells_are_compared_and_have_something_to_compare(path):
    compared = [cell for cell in code_cells(path) if is_compared(cell)]
    assert len(compared) >= FEWEST_COMPARED
    for cell in compared:
        # nbval passes over a cell that was never run, in silence.
        assert cell.execution_count is not None and cell.outputs, f"run it before committing:\n{cell.source}"


@every_notebook
def test_no_cell_failed_and_none_wrote_a_warning(path):
    kinds = [output.output_type for cell in code_cells(path) for output in cell.outputs]
    assert "error" not in kinds
    assert not [(cell, text[:200]) for cell, kind, text in outputs(path) if kind == "stderr"]


@every_notebook
def test_every_picture_has_words(path):
    for number, kind, text in outputs(path):
        if kind in ("text/html", "image/svg+xml"):
            assert not pictures_without_words(text), f"cell {number}"
    for number, cell in enumerate(read(path).cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if any(kind.startswith("image/") for kind in data):
                words = data.get("text/plain", "").strip()
                assert words and not words.startswith("<"), f"cell {number}: a picture without words"


@every_notebook
def test_outputs_tell_nothing_of_the_machine_they_were_made_on(path):
    for number, kind, text in outputs(path):
        for what, pattern in MACHINE.items():
            found = pattern.search(text)
            assert not found, f"cell {number}, {kind}: {what}, {found and found[0]!r}"


@every_notebook
def test_metadata_are_the_same_whoever_ran_it(path):
    notebook = read(path)
    assert notebook.metadata == {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}, cell.source
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@every_notebook
def test_minutes_are_promised_and_kept_short(path):
    first = read(path).cells[0].source
    promised = re.search(r"About (\d+) minutes(?:, (\d+) of them waiting)?", first)
    assert promised, "the first cell says: About N minutes, M of them waiting"
    minutes, waiting = int(promised[1]), int(promised[2] or 0)
    assert minutes <= MOST_MINUTES and waiting <= MOST_WAITING
    called = re.search(r"course\.map\(([^)]*)\)", code_of(path))
    assert called, "the second cell draws the map"
    numbers = dict(re.findall(r"(minutes|waiting)=(\d+)", called[1]))
    assert int(numbers.get("minutes", 0)) == minutes and int(numbers.get("waiting", 0)) == waiting


@every_notebook
def test_whatever_is_expected_has_a_band(path):
    for name in re.findall(r"""expect\(\s*["']([^"']+)["']""", code_of(path)):
        assert {"smoke", "laptop"} <= set(bands().get(name, ())), f"{name} has no band in bands.json"


@every_notebook
def test_links_to_other_files_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", cell.source):
                assert (FOLDER / target).exists(), target


# ---- the rules see what they should


def test_a_silent_picture_is_seen_and_a_told_one_is_not():
    assert pictures_without_words('<img src="x">') and pictures_without_words('<svg width="1"><path/></svg>')
    assert pictures_without_words('<img alt=" " src="x">')
    told = (
        '<img alt="a loss" src="x"><svg role="img" aria-label="a map"></svg><svg><title>a loss</title></svg>'
    )
    assert pictures_without_words(told) == []


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("saved in /home/ada/.cache/nanolab", True),
        ("open C:\\Users\\ada", True),
        ("http://127.0.0.1:8888/lab", True),
        ("connected to 10.0.0.7", True),
        ("https://example.org/home/page", False),
        ("torch 2.13.0, base/mid/sft/rl, 1/2", False),
    ],
)
def test_traces_of_a_machine_are_seen(text, caught):
    assert any(pattern.search(text) for pattern in MACHINE.values()) == caught


# ---- no notebook goes to the network: `make test` runs them all under tests/offline/sitecustomize.py


def under_guard(code: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "offline")}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "import socket; socket.getaddrinfo('example.org', 443)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "import urllib.request\ntry: urllib.request.urlopen('http://example.org', timeout=1)\nexcept Exception: pass",
    ],
)
def test_the_guard_stops_whatever_leaves_the_machine_even_where_errors_are_swallowed(code):
    done = under_guard(code)
    assert done.returncode != 0 and "ReachedForTheNetwork" in done.stderr


def test_the_guard_lets_this_machine_talk_to_itself():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = under_guard(f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5)")
    assert done.returncode == 0, done.stderr


def test_the_kernel_of_a_notebook_is_under_the_guard(monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "offline"))
    source = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    # The kernel starts with this process's environment, as under nbval.
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True)
    client.execute()
    (error,) = notebook.cells[0].outputs
    assert error.ename == "ReachedForTheNetwork"
