"""Two notebooks in JupyterLab, in a real browser: the live plot, Stop, the token autopsy, the chat box."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser import Lab, chromium, lab

import nanolab
from nanolab.checkpoint import list_runs, load_model
from nanolab.profiles import get_profile

REPOSITORY = Path(nanolab.__file__).resolve().parents[1]
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
AUTOPSY = "document.querySelector('.nanolab-autopsy')"
CHIP_4 = f"{AUTOPSY}.querySelectorAll('.nanolab-chips button')[4].innerText"
CHAT = "document.querySelector('.nanolab-chat')"
CHAT_CELL = """\
from nanolab.course import Course
from nanolab.widgets import chat
model, tokenizer, _ = Course().load("sft")
chat(model, tokenizer)"""

# A minute and a half on a machine with nothing else to do; tests beside it take their share.
pytestmark = pytest.mark.timeout(600)

if not chromium() and not os.environ.get("CI"):
    pytest.skip("no chromium on this machine: the browser test needs one", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the notebooks, without outputs; 07 gets a chat at its end."""
    copies = tmp_path_factory.mktemp("notebooks")
    for name in ("03_base", "07_evaluate"):
        book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        if name == "07_evaluate":
            book.cells.append(nbformat.v4.new_code_cell(CHAT_CELL))
        nbformat.write(book, copies / f"{name}.ipynb")
    return copies


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Where the kernels keep their runs."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def same_home(home, own_home, monkeypatch):
    """The test looks where the kernels write."""
    monkeypatch.setenv("NANOLAB_HOME", str(home))


@pytest.fixture(scope="module")
def desk(folder, home, tmp_path_factory) -> Iterator[Lab]:
    """The copies opened in JupyterLab, at smoke size. NANOLAB_SCREENSHOTS names a folder for the pictures."""
    private = tmp_path_factory.mktemp("browser")
    pictures = Path(os.environ.get("NANOLAB_SCREENSHOTS", private))
    settings = {"NANOLAB_HOME": str(home), "NANOLAB_PROFILE": "smoke", "PYTHONPATH": str(REPOSITORY)}
    with lab(folder, private, pictures, **settings) as opened:
        yield opened


def steps_logged(stage: str) -> int:
    """How many steps of a stage the runs in this home have logged."""
    count = 0
    for path in Path(os.environ["NANOLAB_HOME"], "runs").glob("mine*/log.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        count += sum(row.get("stage") == stage and "loss" in row for row in rows)
    return count


def wait_for_steps(count: int, seconds: float = 200) -> None:
    for _ in range(int(20 * seconds)):
        if steps_logged("base") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s only {steps_logged('base')} steps of {count} are trained")


def test_the_autopsy_answers_clicks_and_the_chat_answers(desk: Lab):
    desk.open("07_evaluate.ipynb")
    desk.run_all()
    desk.wait_until_run()
    assert desk.errors() == []
    examine_tokens(desk)
    talk(desk)


def examine_tokens(desk: Lab) -> None:
    box = desk.page.locator(".nanolab-autopsy").first
    box.scroll_into_view_if_needed()
    chips = box.locator(".nanolab-chips button")
    texts = chips.all_inner_texts()
    seconds = []
    for position in (2, 4, 3):
        began = time.perf_counter()
        chips.nth(position).click()
        desk.until(f"text => {AUTOPSY}.innerText.includes(text)", f"Token {position}, {texts[position]}, id")
        seconds.append(time.perf_counter() - began)
    print(f"a click is answered in {', '.join(f'{one:.2f}' for one in seconds)} s")
    assert min(seconds) < 1.0

    # The arrow keys walk once the slider has the focus.
    box.locator(".noUi-handle").first.focus()
    desk.page.keyboard.press("ArrowRight")
    desk.until(f"text => {AUTOPSY}.innerText.includes(text)", f"Token 4, {texts[4]}, id")

    # A slider: other probabilities from the same logits.
    before = box.inner_text()
    box.locator(".noUi-handle").nth(1).focus()
    for _ in range(3):
        desk.page.keyboard.press("ArrowRight")
    desk.until(f"() => {AUTOPSY}.innerText.includes('At temperature 1.3')")
    assert box.inner_text() != before
    desk.picture("07-autopsy", box)

    # A candidate takes the place of the token, and the text comes back.
    candidate = box.locator(".nanolab-candidates button:not([disabled])").first
    chosen = candidate.inner_text()
    candidate.click()
    desk.until(f"text => {AUTOPSY}.innerText.includes(text)", f"Token 4 is now {chosen}.")
    # The chips are drawn on their own: they may come a moment after the words.
    desk.until(f"text => {CHIP_4} === text", chosen)
    desk.picture("07-substituted", box)
    box.get_by_role("button", name="original text").click()
    desk.until(f"text => !{AUTOPSY}.innerText.includes(text)", "is now")
    desk.until(f"text => {CHIP_4} === text", texts[4])
    assert chips.all_inner_texts() == texts


def talk(desk: Lab) -> None:
    box = desk.page.locator(".nanolab-chat").first
    box.scroll_into_view_if_needed()
    for count, (question, send) in enumerate(
        (("What is 2+3? <b>&", "button"), ("And who are you?", "Enter")), 1
    ):
        box.locator("input[type=text]").first.fill(question)
        if send == "Enter":
            desk.page.keyboard.press("Enter")
        else:
            box.get_by_role("button", name="Send").click()
        desk.until(f"count => {CHAT}.innerText.split('model:').length > count", count)
        desk.until(f"() => {CHAT}.innerText.includes('The model read')")
        assert f"you: {question}" in box.inner_text()
    desk.picture("07-chat", box)


def test_the_plot_lives_while_training_runs_and_stop_keeps_the_model(desk: Lab):
    desk.open("03_base.ipynb")
    desk.run_all()
    wait_for_steps(3)
    desk.watch_pictures()
    began = time.perf_counter()
    desk.wait_for_pictures(3)
    print(f"three frames in {time.perf_counter() - began:.2f} s")
    finished = desk.cells_run()
    desk.stop()
    # The training cell ends, and the cells behind it go on; how those end is the notebook's own test.
    desk.wait_for_cells(finished + 2)
    assert desk.errors() == []
    desk.picture("03-stopped")
    planned = get_profile("smoke").base.num_iterations
    (run,) = [run for run in list_runs() if run.tag.startswith("mine")]
    step = run.stages["base"][-1]
    assert 3 <= step < planned, f"stopped at step {step} of {planned}"
    model, _, meta = load_model("base", model_tag=run.tag)
    assert meta["step"] == step and all(weight.isfinite().all() for weight in model.parameters())
