"""What a notebook shows of an error: the learner's line and the message, and nothing of ours."""

from __future__ import annotations

import pytest

from nanolab.errors import ConfigError, NanolabError
from nanolab.profiles import get_profile

CELL = """\
def mine(name):
    return get_profile(name)

mine("tiny")
"""


def raised(source: str, tmp_path) -> NanolabError:
    """The error of a cell that runs as a notebook's cells do, in `__main__`."""
    cell = tmp_path / "cell.py"
    cell.write_text(source, encoding="utf-8")
    with pytest.raises(NanolabError) as caught:
        exec(compile(source, str(cell), "exec"), {"__name__": "__main__", "get_profile": get_profile})
    return caught.value


def test_a_notebook_shows_the_message_and_the_learners_own_line(tmp_path):
    error = raised(CELL, tmp_path)
    shown = "\n".join(error._render_traceback_())
    assert shown.startswith(f"ConfigError: {error}\n") and "no profile 'tiny'" in shown
    assert shown.endswith("(line 2 of the cell: return get_profile(name))")
    assert "profiles.py" not in shown and "Traceback" not in shown


def test_an_error_that_was_never_raised_in_a_cell_is_its_message():
    assert ConfigError("no such thing.")._render_traceback_() == ["ConfigError: no such thing."]


def test_ipython_shows_it_so(tmp_path):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell()
    with capture_output() as caught:
        shell.run_cell("from nanolab.profiles import get_profile\nget_profile('tiny')")
    assert "there is no profile 'tiny'" in caught.stdout and "line 2 of the cell" in caught.stdout
    assert "profiles.py" not in caught.stdout and "Traceback" not in caught.stdout
