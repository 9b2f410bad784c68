"""Every pinned version must install on each Python that pyproject.toml promises."""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PINS = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_file_has_pins() -> None:
    assert len(PINS) > 100


@pytest.mark.parametrize(("name", "version"), PINS, ids=[name for name, _ in PINS])
def test_a_pin_admits_the_first_release_of_the_oldest_python(name: str, version: str) -> None:
    # A pin that needs 3.11.5 breaks `make course` for those whose system has 3.11.2, and for nobody here.
    try:
        found = metadata(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed here")
    if found["Version"].split("+")[0] != version:
        pytest.skip(f"another version is installed here, {found['Version']}")
    needs = found["Requires-Python"]
    assert needs is None or "3.11.0" in SpecifierSet(needs), f"{name} {version} needs Python {needs}"
