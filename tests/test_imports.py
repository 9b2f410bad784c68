"""Arrows between modules point one way, importing is light and silent, and nothing runs strings as code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nanolab
from nanolab.cli import COMMANDS, main

PACKAGE = Path(nanolab.__file__).resolve().parent
HUB_FILES = PACKAGE / "hub_files"  # written into exported folders; no module of nanolab
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if HUB_FILES not in path.parents)

LOW = {
    "errors", "paths", "ranks", "interrupt", "runlog", "installed", "profiles", "compute", "tokenizer", "bpe", "chat", "calculator", "loss", "model",
    "optim", "tasks", "tinyworld", "net", "unpickle",
}  # fmt: skip
MIDDLE = {
    "corpus", "data", "train", "checkpoint_files", "engine", "evals", "autopsy", "checkpoint", "nanochat", "export", "hub", "worksheet",
    "shared_engine",
}  # fmt: skip
HIGH = {"stages", "grpo"}
TOP = {
    "doctor", "bench", "report", "viz", "widgets", "expect", "reference", "course", "lessons", "checks", "cli",
    "__main__",
}  # fmt: skip
LAYERS = [LOW, MIDDLE, HIGH, TOP]
NO_TORCH = {
    "errors", "paths", "profiles", "tokenizer", "bpe", "chat", "calculator", "tasks", "tinyworld", "net",
    "hub", "worksheet", "unpickle",
}  # fmt: skip


def part_of(path: Path) -> str:
    """The layer unit of a source file: `nanolab/tasks/gsm8k.py` -> "tasks"."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """All modules a file imports, anywhere in it, as full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: write the import in full"
            found.add(node.module or "")
            if node.module == "nanolab":
                found |= {f"nanolab.{alias.name}" for alias in node.names}
    return found


def arrows(path: Path) -> set[str]:
    """The other layer units of nanolab that a file imports; names like `__version__` are none."""
    units = {name.split(".")[1] for name in imported(path) if name.startswith("nanolab.")}
    return (units & set().union(*LAYERS)) - {part_of(path)}


def layer(unit: str) -> int:
    return next(number for number, units in enumerate(LAYERS) if unit in units)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_the_layers(path):
    unit = part_of(path)
    if unit == "__init__":
        assert not arrows(path)
        return
    assert unit in set().union(*LAYERS), f"{path}: a new module needs its place in a layer above"
    upward = {other for other in arrows(path) if layer(other) > layer(unit)}
    assert not upward, f"{unit} must not import {upward}"
    if unit == "tinyworld":
        assert arrows(path) <= {"errors"}
    if unit in NO_TORCH:
        assert not {name for name in imported(path) if name.split(".")[0] == "torch"}


def test_what_goes_to_the_hub_stands_on_its_own():
    (path,) = HUB_FILES.glob("*.py")
    assert {name.split(".")[0] for name in imported(path)} == {
        "__future__",
        "typing",
        "torch",
        "transformers",
    }
    assert not any("hub_files" in name for source in SOURCES for name in imported(source))


def test_nothing_imports_the_command_line():
    users = {part_of(path) for path in SOURCES if "cli" in arrows(path)}
    assert users <= {"__main__"}


def test_only_notebooks_and_the_command_line_import_the_checks():
    users = {part_of(path) for path in SOURCES if "checks" in arrows(path)}
    assert users <= {"cli"}


def in_a_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_light_modules_import_no_torch_and_print_nothing():
    names = "nanolab, nanolab.cli, nanolab.profiles, nanolab.paths, nanolab.chat, nanolab.tasks"
    names += ", nanolab.tokenizer, nanolab.calculator, nanolab.tinyworld, nanolab.doctor, nanolab.worksheet"
    heavy = "torch", "datasets", "huggingface_hub", "transformers", "matplotlib", "pandas"
    out = in_a_new_process(f"import sys, {names}\nprint([name for name in {heavy} if name in sys.modules])")
    assert out == "[]\n"


def test_every_module_imports_in_silence():
    modules = [
        ".".join(("nanolab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCES
        if path.stem != "__main__"
    ]
    code = f"import importlib\nfor name in {modules}: importlib.import_module(name)"
    assert in_a_new_process(code) == ""


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Every call with its dotted name: `torch.load(...)` -> "torch.load"."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize(
    "path", [*SOURCES, *HUB_FILES.glob("*.py")], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nothing_is_executed_or_unpickled(path):
    forbidden = {"eval", "exec", "compile", "builtins.eval", "builtins.exec"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name, call in calls(tree):
        assert name not in forbidden, f"{path.name}, line {call.lineno}: {name}"
        if name == "torch.load":
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert keywords.get("weights_only") == "True", f"{path.name}, line {call.lineno}"
    assert not imported(path) & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_every_command_works(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code in (0, None)
    out = capsys.readouterr().out
    assert "usage: nanolab" in out
    if not command:
        assert all(name in out for name in COMMANDS)


def test_help_needs_no_torch_and_no_time():
    code = (
        "import sys\n"
        "from nanolab.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    assert in_a_new_process(code).endswith("False\n")


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "nanolab", "chat", "--help"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "--source" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports a closed pipe in another way")
def test_a_reader_that_has_had_enough_sees_no_stack_trace():
    program = subprocess.Popen(
        [sys.executable, "-m", "nanolab", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    program.stdout.close()  # as `nanolab --help | head` does, only sooner
    assert program.wait(timeout=60) == 1
    assert program.stderr.read() == ""
    program.stderr.close()
