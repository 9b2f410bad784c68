"""Rules for every challenge: made from its solution, which passes; blank, it fails as not attempted and no more."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS, CHALLENGES = ROOT / "solutions", ROOT / "challenges"

PROMISED = {
    "01_pirate": ("medium", 20), "02_learning_rate": ("easy", 15), "03_token_autopsy": ("medium", 20),
    "04_frankenstein": ("hard", 30), "05_embeddings": ("medium", 25), "06_loss_detective": ("easy", 10),
    "07_comparison": ("easy", 10), "08_broken_runs": ("hard", 30),
}  # fmt: skip
"""Difficulty and minutes of each."""

MOST_LINES = 10
MARKS = ("### BEGIN SOLUTION", "### END SOLUTION")

every_solution = pytest.mark.parametrize(
    "path", sorted(SOLUTIONS.glob("*.ipynb")), ids=lambda path: path.stem
)
every_challenge = pytest.mark.parametrize(
    "path", sorted(CHALLENGES.glob("*.ipynb")), ids=lambda path: path.stem
)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def is_check(cell: Any) -> bool:
    return "check" in cell.metadata.get("tags", [])


def text_of(path: Path) -> str:
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


@pytest.fixture(scope="module")
def generate():
    """The script solutions/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", SOLUTIONS / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- run them


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Execute a notebook at smoke size in an empty home, without network; `(cell, errors)` of its code cells."""
    monkeypatch.setenv("NANOLAB_PROFILE", "smoke")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "offline"), str(ROOT)]))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))

    def execute(path: Path) -> list[tuple[Any, list[Any]]]:
        notebook = read(path)
        resources = {"metadata": {"path": str(tmp_path)}}
        client = nbclient.NotebookClient(
            notebook, timeout=200, kernel_name="python3", allow_errors=True, resources=resources
        )
        client.execute()
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        return [(cell, [one for one in cell.outputs if one.output_type == "error"]) for cell in code]

    return execute


def words(errors: list[Any]) -> str:
    return "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)) for error in errors)[-2000:]


@every_solution
def test_a_solution_runs_and_every_check_says_right(path, run):
    for cell, errors in run(path):
        assert not errors, f"{cell.source}\n{words(errors)}"
        if is_check(cell):
            assert "Right." in str(cell.outputs), cell.source


@every_challenge
def test_a_blank_challenge_is_not_attempted_and_nothing_else_goes_wrong(path, run):
    for cell, errors in run(path):
        assert [error.ename for error in errors] == ["NotAttempted"] * is_check(cell), (
            f"{cell.source}\n{words(errors)}"
        )
        for error in errors:
            assert len(error.traceback) == 1 and error.traceback[0].startswith("Not attempted yet")
            assert "Not attempted yet" in str(cell.outputs[0].get("data"))


# ---- read them


def test_all_challenges_are_there():
    assert [path.stem for path in sorted(SOLUTIONS.glob("*.ipynb"))] == list(PROMISED)


@every_solution
def test_a_challenge_says_what_it_is(path):
    difficulty, minutes = PROMISED[path.stem]
    first = read(path).cells[0].source
    assert re.match(rf"# Challenge {int(path.stem[:2])} · \w", first)
    assert re.search(rf"(?i)difficulty\W+{difficulty}\b", first)
    assert re.search(rf"(?i)time\W+(about )?{minutes} min", first)
    assert re.search(r"(?i)what you('ll| will) learn", first)
    assert re.search(r"(?m)^## Questions to explore", text_of(path)) and re.search(
        r"(?m)^## Bonus", text_of(path)
    )


@every_solution
def test_every_check_follows_a_blank_and_a_hint(path):
    cells = read(path).cells
    checks = [place for place, cell in enumerate(cells) if is_check(cell)]
    assert checks
    previous = 0
    for place in checks:
        between = cells[previous:place]
        code = "\n".join(cell.source for cell in between if cell.cell_type == "code")
        text = "\n".join(cell.source for cell in between if cell.cell_type == "markdown")
        shown = cells[place].source
        assert MARKS[0] in code and "TODO" in code, f"no blank before: {shown}"
        assert "<details>" in text and "Hint" in text, f"no hint before: {shown}"
        previous = place + 1


@every_solution
def test_a_check_cell_begins_with_its_check(path):
    for cell in read(path).cells:
        if is_check(cell):
            first = ast.parse(cell.source).body[0]
            assert isinstance(first, ast.Expr) and isinstance(first.value, ast.Call), cell.source


@every_solution
def test_folds_close_and_hints_are_numbered(path):
    text = text_of(path)
    assert (
        text.count("<details>")
        == text.count("</details>")
        == text.count("<summary>")
        == text.count("</summary>")
    )
    assert "<summary>Hint" in text and re.search("<summary>(?!Hint)", text), (
        "no answer to a question is folded"
    )


@every_solution
def test_a_cell_has_at_most_ten_lines_of_code(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            lines = [
                one for one in cell.source.split("\n") if one.strip() and not one.strip().startswith("#")
            ]
            assert len(lines) <= MOST_LINES, f"{len(lines)} lines:\n{cell.source}"


@pytest.mark.parametrize("folder", [SOLUTIONS, CHALLENGES], ids=lambda folder: folder.name)
def test_nothing_but_the_text_of_a_notebook_is_stored(folder):
    for path in folder.glob("*.ipynb"):
        notebook = read(path)
        assert set(notebook.metadata) <= {"kernelspec", "language_info"}
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
        for cell in notebook.cells:
            assert set(cell.metadata) <= {"tags"} and set(cell.metadata.get("tags", [])) <= {"check"}
            if cell.cell_type == "code":
                assert cell.outputs == [] and cell.execution_count is None


@every_challenge
def test_a_challenge_keeps_no_line_of_its_solution(path):
    for cell, solved in zip(read(path).cells, read(SOLUTIONS / path.name).cells, strict=True):
        assert "SOLUTION" not in cell.source
        if MARKS[0] in solved.source:
            assert "..." in cell.source and "TODO" in cell.source
            hidden = re.findall(rf"(?s){MARKS[0]}\n(.*?){MARKS[1]}", solved.source)
            assert not any(one.strip() and one in cell.source for one in hidden)


# ---- make them


def test_the_challenges_are_those_that_the_solutions_make(generate):
    assert generate.differences(SOLUTIONS, CHALLENGES) == []


def notebook(*cells: str) -> Any:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    for number, cell in enumerate(made.cells):
        cell.id, cell.execution_count = f"cell-{number}", 3
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="seen")]
    return made


BLANKS = [
    ("x = 1", "x = 1"),
    (
        "def f(x):\n    # TODO: one more\n    ### BEGIN SOLUTION\n    y = 1\n    return x + y\n    ### END SOLUTION",
        "def f(x):\n    # TODO: one more\n    ...",
    ),
    ("x = ...  # TODO\n### BEGIN SOLUTION\nx = 4\n### END SOLUTION", "x = ...  # TODO"),
    (
        "def f(x):\n    ### BEGIN SOLUTION\n    if x:\n        return 1\n    return 2\n    ### END SOLUTION\n\n\nprint(f)",
        "def f(x):\n    ...\n\n\nprint(f)",
    ),
    (
        "a = ...\n### BEGIN SOLUTION\na = 1\n### END SOLUTION\nb = ...\n### BEGIN SOLUTION\nb = 2\n### END SOLUTION\nc = 3",
        "a = ...\nb = ...\nc = 3",
    ),
]


@pytest.mark.parametrize(("solved", "blank"), BLANKS)
def test_solutions_become_blanks(generate, solved, blank):
    assert generate.blank(solved) == blank


@pytest.mark.parametrize(
    "source",
    [
        "### BEGIN SOLUTION\nx = 1",
        "x = 1\n### END SOLUTION",
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
        "if x:\n    ### BEGIN SOLUTION\n    y = 1\n### END SOLUTION",
        "# BEGIN SOLUTION\nx = 1\n# END SOLUTION",
    ],
)
def test_marks_that_would_let_a_solution_through_are_refused(generate, source):
    with pytest.raises(generate.BadSolution):
        generate.blank(source)


def test_made_twice_it_is_the_same_and_any_change_is_seen(generate, tmp_path):
    solutions, challenges = tmp_path / "solutions", tmp_path / "challenges"
    solutions.mkdir()
    nbformat.write(notebook(BLANKS[1][0], "f(1)"), solutions / "01_one.ipynb")
    nbformat.write(notebook("1"), solutions / "02_two.ipynb")
    assert generate.differences(solutions, challenges) == [
        "01_one.ipynb is missing",
        "02_two.ipynb is missing",
    ]
    generate.write(solutions, challenges)
    first = (challenges / "01_one.ipynb").read_bytes()
    assert b"seen" not in first and b"return" not in first and first.endswith(b"}\n")
    generate.write(solutions, challenges)
    assert (challenges / "01_one.ipynb").read_bytes() == first
    assert generate.differences(solutions, challenges) == []
    nbformat.write(notebook(BLANKS[1][0], "f(2)"), solutions / "01_one.ipynb")
    (solutions / "02_two.ipynb").unlink()
    assert generate.differences(solutions, challenges) == [
        "01_one.ipynb differs",
        "02_two.ipynb has no solution",
    ]
    generate.write(solutions, challenges)
    assert [path.name for path in challenges.iterdir()] == ["01_one.ipynb"]


def test_the_script_says_which_notebook_differs(generate, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "SOLUTIONS", tmp_path)
    monkeypatch.setattr(generate, "CHALLENGES", tmp_path / "challenges")
    nbformat.write(notebook("1"), tmp_path / "01_one.ipynb")
    assert generate.main(["--check"]) == 1
    assert "challenges/01_one.ipynb is missing" in capsys.readouterr().out
    assert generate.main([]) == 0 and generate.main(["--check"]) == 0
    nbformat.write(notebook("### BEGIN SOLUTION"), tmp_path / "01_one.ipynb")
    assert generate.main(["--check"]) == 1
    assert "01_one.ipynb, cell 0: a solution never ends" in capsys.readouterr().out
