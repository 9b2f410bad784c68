"""What notebooks 00 and 99 show is true of the runs and profiles that they show, and their texts hang together."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import nanolab
from nanolab import stages
from nanolab.cli import COMMANDS
from nanolab.doctor import Finding
from nanolab.expect import bands, predict
from nanolab.lessons import tour
from nanolab.paths import home, run_dir
from nanolab.profiles import STAGES, get_profile, override
from nanolab.stages import open_stage

NOTEBOOKS = Path(nanolab.__file__).resolve().parent.parent / "notebooks"
PROFILES = ("smoke", "laptop", "workshop")


@pytest.fixture(scope="module")
def tiny():
    """The smoke profile with three short steps a stage."""
    profile = replace(tour.small(0.01), depth=1, sequence_len=128)
    for stage in STAGES[:-1]:
        profile = override(
            profile, stage, num_iterations=3, total_batch_size=128, device_batch_size=1, eval_tokens=128
        )
    return override(profile, "rl", num_iterations=1, examples_per_step=1, num_samples=2, max_new_tokens=4)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """Home of a run called "tour" that went through all stages, and what was told on the way."""
    folder = tmp_path_factory.mktemp("tour")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOLAB_HOME", str(folder))
        patch.setattr(stages, "TOKENIZER_CHARACTERS", 100_000)
        steps = list(tour.pipeline(tiny, "tour"))
    return folder, steps


def test_the_pipeline_trains_every_stage_in_order_on_one_clock(tiny, trained):
    _, steps = trained
    assert [step.stage for step in steps] == ["base"] * 3 + ["mid"] * 3 + ["sft"] * 3 + ["rl"]
    seconds = [step.seconds for step in steps]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert steps[0].loss == pytest.approx(math.log(tiny.vocab_size), abs=0.1)


def test_a_finished_pipeline_tells_the_same_again_without_training(tiny, trained):
    folder, steps = trained
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOLAB_HOME", str(folder))
        assert list(tour.pipeline(tiny, "tour")) == steps
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_a_stopped_pipeline_leaves_out_the_stages_after_it(tiny, trained, monkeypatch):
    run_dir("stopped").mkdir(parents=True)
    shutil.copy(trained[0] / "runs" / "tour" / "tokenizer.json", run_dir("stopped"))

    def stop_in_mid(*arguments):
        work = open_stage(*arguments)

        def pressed() -> bool:
            work.stop.set = True
            return True

        if work.name == "mid":
            work.stop.agreed = pressed
        return work

    monkeypatch.setattr(tour, "open_stage", stop_in_mid)
    assert [step.stage for step in tour.pipeline(tiny, "stopped")] == ["base"] * 3
    assert tour.stages_of("stopped") == ["base"]
    monkeypatch.setattr(tour, "open_stage", open_stage)
    assert [step.stage for step in tour.pipeline(tiny, "stopped")][-1] == "rl"


def test_outcomes_and_rewards_come_from_the_log(trained, monkeypatch):
    folder, steps = trained
    monkeypatch.setenv("NANOLAB_HOME", str(folder))
    assert tour.outcome("tour", "base") == f"{steps[0].loss:.2f} → {steps[2].loss:.2f}"
    assert len(tour.rewards("tour")) == 1
    assert tour.outcome("nobody", "base") == tour.outcome("nobody", "rl") == tour.MISSING


def test_own_runs_prefer_mine_to_an_experiment(trained, monkeypatch):
    folder, _ = trained
    monkeypatch.setenv("NANOLAB_HOME", str(folder))
    shutil.copytree(folder / "runs" / "tour", folder / "runs" / "scratch-tour")
    assert tour.own_runs() == {"smoke": "scratch-tour"}
    shutil.copytree(folder / "runs" / "tour", folder / "runs" / "mine-smoke")
    assert tour.own_runs() == {"smoke": "mine-smoke"}


def test_speaking_says_who_ended_the_answer(trained, monkeypatch):
    from nanolab.checkpoint import load_model

    folder, _ = trained
    monkeypatch.setenv("NANOLAB_HOME", str(folder))
    model, tokenizer, _ = load_model("sft", model_tag="tour")
    spoken = tour.speak(model, tokenizer, "The cat", "Who are you?", length=3)
    assert set(spoken) == {"continues 'The cat'", "answers 'Who are you?'"}
    assert all(text[-1] in "■…" for text in spoken.values())


def test_small_keeps_the_smoke_profile_and_takes_a_share_of_its_steps():
    assert tour.small() == get_profile("smoke")
    assert tour.small(0.5).base.num_iterations == get_profile("smoke").base.num_iterations // 2
    assert tour.compute_of(tour.small(0.5)) == pytest.approx(tour.compute_of(get_profile("smoke")) / 2)


def test_minutes_halve_when_the_speed_doubles():
    slow = tour.Speed(get_profile("laptop"), 1000.0, 1000.0)
    fast = tour.Speed(get_profile("laptop"), 2000.0, 2000.0)
    for name in PROFILES:
        for stage in STAGES:
            assert slow.minutes(name)[stage] == pytest.approx(2 * fast.minutes(name)[stage])
    rows = tour.minutes_table(slow, PROFILES)
    assert [row["profile"] for row in rows] == list(PROFILES)
    plan = get_profile("laptop").base
    assert slow.minutes("laptop")["base"] == pytest.approx(
        plan.num_iterations * plan.total_batch_size / 60_000
    )


def test_the_table_of_the_machine_names_problems_but_no_paths(monkeypatch):
    trouble = Finding("home", f"{home()} cannot be written to", "Set NANOLAB_HOME\nto another folder.")
    monkeypatch.setattr(tour.doctor, "storage", lambda: iter([trouble]))
    rows = {row["what"]: row for row in tour.machine()}
    assert rows["home"][""] == "PROBLEM" and rows["home"]["what to do"].endswith("to another folder.")
    assert rows["python"][""] == rows["3 steps"][""] == "ok"
    assert str(home()) not in str(rows) and sys.executable not in str(rows)


@pytest.mark.parametrize("stage", STAGES)
def test_a_card_has_the_numbers_of_its_profiles(stage):
    card = tour.card(stage, PROFILES, {})
    assert card["steps"]["workshop"] == getattr(get_profile("workshop"), stage).num_iterations
    assert card["data"]["smoke"].startswith("Tiny") and "Tiny" not in card["data"]["workshop"]
    result = card["held-out problems right" if stage == "rl" else "loss (nats)"]
    assert result["laptop"] == tour.MISSING and tour.WORKSHEET[stage] in result["workshop"]


def test_the_cards_show_every_band_there_is():
    text = (NOTEBOOKS / "99_reference.ipynb").read_text(encoding="utf-8")
    shown = set(re.findall(r'tour\.usual\(\\"(\w+)\\"\)', text))
    assert {name.split("/")[0] for name in bands()} <= shown
    rows = tour.usual("start")
    assert len(rows) == sum(name.startswith("start/") for name in bands())
    assert all(row["if lower"] and row["if higher"] and " to " in row["smoke"] for row in rows)


def test_guesses_are_those_that_were_made():
    assert tour.guesses() == {}
    predict("first loss", 8.0)
    assert tour.guesses() == {"first loss": "8.0"}
    (home() / "predictions.json").write_text("[", encoding="utf-8")
    assert tour.guesses() == {}


def markdown(name: str) -> str:
    """All the text of a notebook, or of another file beside the notebooks."""
    path = NOTEBOOKS / name
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_every_command_that_the_reference_names_exists():
    named = set(
        re.findall(r"`[^`\n]*?nanolab ([a-z]+)", markdown("99_reference.ipynb") + markdown("FACILITATOR.md"))
    )
    assert named and named <= set(COMMANDS)
    for command in ("run", "base", "mid", "sft", "rl", "chat", "runs"):
        assert command in named


def test_links_between_the_notebooks_lead_somewhere():
    for name in ("00_start_here.ipynb", "99_reference.ipynb", "FACILITATOR.md"):
        for target in re.findall(r"\]\((\w+\.ipynb)\)", markdown(name)):
            assert (NOTEBOOKS / target).exists(), f"{name} links to {target}"


def test_the_glossary_is_in_order():
    text = markdown("99_reference.ipynb").split("## 5. Glossary")[1].split("## 6.")[0]
    words = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(words) > 50 and words == sorted(words, key=str.lower)


def test_the_timetable_has_the_minutes_of_the_notebooks():
    listed = dict(re.findall(r"^\| (\d\d) [^|]*\| (\d+) \|", markdown("FACILITATOR.md"), flags=re.MULTILINE))
    for path in sorted(NOTEBOOKS.glob("0*.ipynb")):
        minutes = re.search(r"About (\d+) minutes", markdown(path.name))
        assert minutes and listed[path.name[:2]] == minutes[1], path.name


def test_a_run_is_where_the_facilitator_is_told_to_copy_it_from():
    assert run_dir("mine") == home() / "runs" / "mine"
