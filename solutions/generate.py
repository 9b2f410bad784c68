"""Make the notebooks in challenges/ from those in solutions/.

    python solutions/generate.py            write them
    python solutions/generate.py --check    change nothing; exit with 1 where they differ

What stands between `### BEGIN SOLUTION` and `### END SOLUTION` goes: an indented block becomes `...`, one
at the left margin nothing, because the line before it has the blank (`answer = ...`). Outputs go too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat

SOLUTIONS = Path(__file__).resolve().parent
CHALLENGES = SOLUTIONS.parent / "challenges"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


class BadSolution(Exception):
    """A notebook in solutions/ from which no challenge can be made."""


def blank(source: str, where: str = "a cell") -> str:
    """The source of a code cell without its solutions. Raises BadSolution for marks that do not pair."""
    kept: list[str] = []
    open_at: str | None = None
    for number, line in enumerate(source.split("\n"), start=1):
        mark, indent = line.strip(), line[: len(line) - len(line.lstrip())]
        if mark == BEGIN:
            if open_at is not None:
                raise BadSolution(f"{where}, line {number}: a solution begins inside another one.")
            open_at = indent
            if indent:
                kept.append(f"{indent}...")
        elif mark == END:
            if open_at != indent:
                raise BadSolution(f"{where}, line {number}: {END} does not match a {BEGIN} of its indent.")
            open_at = None
        elif "SOLUTION" in line and line.lstrip().startswith("#"):
            raise BadSolution(f"{where}, line {number}: {mark!r} is neither {BEGIN!r} nor {END!r}.")
        elif open_at is None:
            kept.append(line)
    if open_at is not None:
        raise BadSolution(f"{where}: a solution never ends.")
    return "\n".join(kept).strip("\n")


def challenge(path: Path) -> str:
    """The text of the challenge that belongs to the solution at `path`."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.source = blank(cell.source, f"{path.name}, cell {number}")
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def differences(solutions: Path, challenges: Path) -> list[str]:
    """What is wrong with the folder of challenges, a line for each notebook; empty where nothing is."""
    wanted = {path.name: challenge(path) for path in sorted(solutions.glob("*.ipynb"))}
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(challenges.glob("*.ipynb"))}
    lines = [f"{name} is missing" for name in wanted if name not in found]
    lines += [f"{name} differs" for name in wanted if name in found and found[name] != wanted[name]]
    return lines + [f"{name} has no solution" for name in found if name not in wanted]


def write(solutions: Path, challenges: Path) -> None:
    """Write all challenges, and remove those whose solution is gone."""
    wanted = {path.name: challenge(path) for path in sorted(solutions.glob("*.ipynb"))}
    challenges.mkdir(exist_ok=True)
    for path in challenges.glob("*.ipynb"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (challenges / name).write_text(text, encoding="utf-8", newline="\n")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make challenges/ from solutions/.")
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 where they differ")
    try:
        if parser.parse_args(arguments).check:
            lines = differences(SOLUTIONS, CHALLENGES)
            if lines:
                print("\n".join(f"challenges/{line}" for line in lines))
                print("Change the notebook in solutions/, then run: python solutions/generate.py")
            return 1 if lines else 0
        write(SOLUTIONS, CHALLENGES)
    except BadSolution as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
