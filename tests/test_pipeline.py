"""Whole stages at toy size: they follow each other, stop cleanly, and survive being killed at any moment."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

from nanolab import ranks
from nanolab.checkpoint import find_checkpoint, load_checkpoint, load_model
from nanolab.cli import main, say_markdown
from nanolab.errors import CheckpointError
from nanolab.interrupt import StopFlag
from nanolab.model import GPT
from nanolab.paths import run_dir
from nanolab.profiles import STAGES, RLPlan, StagePlan, get_profile
from nanolab.report import quoted
from nanolab.runlog import Log
from nanolab.stages import model_config, open_stage

PLAN = StagePlan(6, 256, 2, 64, eval_every=-1, eval_tokens=256, save_every=2)
PROFILE = replace(
    get_profile("smoke"), depth=1, vocab_size=400, base=replace(PLAN, device_batch_size=4), mid=PLAN, sft=PLAN,
    rl=RLPlan(
        3, examples_per_step=2, num_samples=3, max_new_tokens=8, eval_examples=4, save_every=1, kl_weight=0.1
    ),
    device="cpu", dtype="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """One home for the module, so that TinyWorld is written once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def use_shared_home(shared_home, monkeypatch):
    monkeypatch.setenv("NANOLAB_HOME", str(shared_home))
    monkeypatch.setattr("nanolab.stages.TOKENIZER_CHARACTERS", 50_000)


def train(stage, tag, profile=PROFILE):
    work = open_stage(profile, stage, tag)
    return work, list(work.steps())


def contents(work):
    """All that a finished stage leaves: weights, optimizer state, data position, random state."""
    folder = find_checkpoint(work.run, work.name)
    model = GPT(model_config(work.profile))
    _, state = load_checkpoint(folder, model=model)
    optimizers = (folder / "optimizer.safetensors").read_bytes()
    return model.state_dict(), optimizers, json.dumps(state, default=str)


def assert_same(a, b):
    assert all(torch.equal(a[0][name], b[0][name]) for name in a[0])
    assert a[1] == b[1] and a[2] == b[2]


def losses(run):
    return [
        (row["stage"], row["step"], row.get("loss", row.get("reward")))
        for row in Log(run).rows()
        if "seconds" in row
    ]


def test_four_stages_follow_each_other():
    for stage in STAGES:
        work, records = train(stage, "four")
        assert [record.index for record in records] == list(range(work.schedule.steps))
        assert work.finished and not work.stopped
        model, tokenizer, meta = load_model(stage, model_tag="four")
        assert meta["step"] == work.schedule.steps and tokenizer.hash() == work.tokenizer.hash()
        assert (meta["parent"] or {}).get("stage") == work.parent
        assert all(
            torch.equal(a, b) for a, b in zip(model.parameters(), work.model.parameters(), strict=True)
        )
    assert open_stage(PROFILE, "sft", "four").validation().bits_per_byte > 0
    assert 0 <= open_stage(PROFILE, "rl", "four").validation().accuracy <= 1


def test_a_stage_without_its_parent_says_how_to_get_it():
    with pytest.raises(CheckpointError, match="nanolab base --model-tag orphan"):
        open_stage(PROFILE, "mid", "orphan")


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_stage_equals_an_unbroken_one_bit_for_bit(stage, monkeypatch):
    # A model so small is never right; rewarded for something that happens, it learns in each step of rl.
    monkeypatch.setattr("nanolab.tasks.TinyGSM.reward", lambda self, example, text: float(len(text) % 2))
    for tag in ("unbroken", "broken"):
        for earlier in STAGES[: STAGES.index(stage)]:
            if not open_stage(PROFILE, earlier, tag).finished:
                train(earlier, tag)
    whole, _ = train(stage, "unbroken")
    for stop_after in (1, 2):
        work = open_stage(PROFILE, stage, "broken")
        for number, _ in enumerate(work.steps(), 1):
            if number == stop_after:
                break
        assert work.start == (1 if stop_after == 1 else 3)
    rest, _ = train(stage, "broken")
    assert_same(contents(whole), contents(rest))
    assert losses(whole.run) == losses(rest.run)


def speedup_of_bf16(monkeypatch, ratio):
    """What the timing of the formats says from now on."""
    monkeypatch.setattr("nanolab.compute.cpu_speedup_of_bf16", lambda: ratio)


MEASURED = replace(PROFILE, dtype="auto")


@pytest.mark.parametrize(("first", "then"), [(4.0, 0.4), (0.4, 4.0)])
def test_a_run_killed_in_any_stage_keeps_its_format_and_equals_an_unbroken_one(
    first, then, monkeypatch, capsys
):
    monkeypatch.setattr("nanolab.tasks.TinyGSM.reward", lambda self, example, text: float(len(text) % 2))
    begun, other = ("bfloat16", "float32") if first > then else ("float32", "bfloat16")
    whole, killed = f"whole-{begun}", f"killed-{begun}"
    for stage in STAGES:
        speedup_of_bf16(monkeypatch, first if stage == "base" else then)
        unbroken = open_stage(MEASURED, stage, whole)
        assert unbroken.compute.format == begun
        shutil.rmtree(run_dir(killed), ignore_errors=True)
        for record in unbroken.steps():
            if record.index == unbroken.plan.save_every:
                # What is on the disk at this moment is what a kill would leave.
                shutil.copytree(unbroken.run, run_dir(killed))
        speedup_of_bf16(monkeypatch, then)
        capsys.readouterr()
        resumed = open_stage(MEASURED, stage, killed)
        assert 0 < resumed.start < resumed.schedule.steps and resumed.compute.format == begun
        list(resumed.steps())
        assert f"--dtype {other}" in capsys.readouterr().out
        assert load_model(stage, model_tag=killed)[2]["dtype"] == begun
        assert_same(contents(unbroken), contents(resumed))


def test_a_format_asked_for_wins_and_a_change_within_a_stage_is_told(monkeypatch, capsys):
    speedup_of_bf16(monkeypatch, 4.0)
    train("base", "asked", MEASURED)
    mid = open_stage(replace(MEASURED, dtype="float32"), "mid", "asked")
    for record in mid.steps():
        if record.index == 2:
            break
    assert mid.compute.format == "float32" and capsys.readouterr().out == ""
    assert open_stage(MEASURED, "mid", "asked").compute.format == "float32"
    changed = open_stage(replace(MEASURED, dtype="bfloat16"), "mid", "asked")
    list(changed.steps())
    (line,) = capsys.readouterr().out.splitlines()
    assert "float32 up to step 3" in line and "goes on in bfloat16" in line and "not equal" in line
    list(open_stage(replace(MEASURED, dtype="float32"), "mid", "asked").steps())
    assert capsys.readouterr().out == "", "a finished stage goes on in nothing"
    assert open_stage(MEASURED, "sft", "asked").compute.format == "bfloat16"


def test_a_run_of_an_older_version_tells_no_format_and_has_it_measured(monkeypatch):
    monkeypatch.setattr("nanolab.stages.format_of", lambda run, stage: None)
    for ratio, format in ((0.4, "float32"), (4.0, "bfloat16")):
        speedup_of_bf16(monkeypatch, ratio)
        assert open_stage(MEASURED, "base", "older").compute.format == format


def test_a_damaged_checkpoint_has_no_say_in_the_format(monkeypatch):
    speedup_of_bf16(monkeypatch, 4.0)
    train("base", "damaged", MEASURED)
    newest = find_checkpoint(run_dir("damaged"), "base")
    meta = (newest / "meta.json").read_text(encoding="utf-8")
    (newest / "meta.json").write_text(meta.replace("bfloat16", "float32 "), encoding="utf-8")
    speedup_of_bf16(monkeypatch, 0.4)
    with pytest.warns(UserWarning, match="the one before it is used") as told:
        assert open_stage(MEASURED, "base", "damaged").compute.format == "bfloat16"
    assert len(told) == 1


def test_rl_is_held_by_the_model_it_started_from():
    for stage in ("base", "mid", "sft", "rl"):
        work, _ = train(stage, "leash")
    sft, *_ = load_model("sft", model_tag="leash")
    held_by = open_stage(PROFILE, "rl", "leash").reference()
    assert all(torch.equal(held_by.state_dict()[name], weight) for name, weight in sft.state_dict().items())
    without = replace(PROFILE, rl=replace(PROFILE.rl, kl_weight=0.0))
    assert open_stage(without, "rl", "leash").reference() is None
    # Looking at a finished stage needs no parent.
    shutil.rmtree(work.run / "sft")
    assert open_stage(PROFILE, "rl", "leash").finished


def test_what_was_measured_where_a_run_resumes_stays_in_its_log():
    work = open_stage(PROFILE, "base", "measured")
    work.log.add(stage="base", step=0, validation={})
    for record in work.steps():
        if record.index == 1:
            work.log.add(stage="base", step=2, validation={})
            break
    again = open_stage(PROFILE, "base", "measured")
    assert again.start == 2
    assert [row["step"] for row in again.log.rows() if "validation" in row] == [0, 2]


def test_ctrl_c_stops_between_steps_and_keeps_the_model():
    work = open_stage(PROFILE, "base", "interrupted")
    before = signal.getsignal(signal.SIGINT)
    seen = []
    for record in work.steps():
        seen.append(record.index)
        if record.index == 2:
            signal.raise_signal(signal.SIGINT)
    assert seen == [0, 1, 2] and work.stopped and work.start == 3
    assert load_model("base", model_tag="interrupted")[2]["step"] == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_during_the_vote_waits_for_the_next_one(monkeypatch):
    # Whoever left now would leave alone: the other processes have heard that nobody wants to stop.
    flag = StopFlag()

    def vote(asked: bool) -> bool:
        flag.set = True
        return asked

    monkeypatch.setattr(ranks, "anyone", vote)
    assert [flag.agreed(), flag.agreed()] == [False, True]


def test_a_stopped_stage_goes_on_when_its_cell_is_run_again():
    whole, _ = train("base", "not-stopped")
    work = open_stage(PROFILE, "base", "again")
    for record in work.steps():
        if record.index == 1:
            signal.raise_signal(signal.SIGINT)
    assert work.stopped
    rest = [record.index for record in work.steps()]
    assert rest == list(range(2, work.schedule.steps)) and work.finished and not work.stopped
    assert_same(contents(whole), contents(work))
    assert losses(whole.run) == losses(work.run)


def test_an_error_in_the_callers_loop_loses_no_step():
    work = open_stage(PROFILE, "base", "callers-error")
    with pytest.raises(ZeroDivisionError):
        for record in work.steps():
            if record.index == 2:
                raise ZeroDivisionError
    assert load_model("base", model_tag="callers-error")[2]["step"] == 3


def test_another_size_than_the_runs_is_refused_in_words():
    train("base", "sized")
    with pytest.raises(CheckpointError, match="other"):
        open_stage(replace(PROFILE, depth=2), "base", "sized")


def _train_until_killed(home, tag):
    import os

    os.environ["NANOLAB_HOME"] = home
    torch.set_num_threads(1)
    for _ in open_stage(SLOW, "base", tag).steps():
        pass


SLOW = replace(PROFILE, base=replace(PROFILE.base, num_iterations=40, save_every=1))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a Unix signal")
@pytest.mark.timeout(280)
def test_killed_at_twenty_random_moments_a_run_ends_as_if_it_had_not_been(shared_home):
    torch.set_num_threads(1)
    whole, _ = train("base", "alive", SLOW)
    open_stage(SLOW, "base", "killed")  # writes the tokenizer
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nanolab.stages"])
    moments, kills = random.Random(0), 0
    while kills < 20:
        process = context.Process(target=_train_until_killed, args=(str(shared_home), "killed"))
        process.start()
        time.sleep(0.05 + moments.random() * 0.6)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:  # it finished before the kill: begin again, so that all twenty count
            for folder in (whole.run.parent / "killed" / "base").glob("step-*"):
                if moments.random() < 0.95:
                    import shutil

                    shutil.rmtree(folder)
    rest, _ = train("base", "killed", SLOW)
    assert_same(contents(whole), contents(rest))
    assert losses(whole.run) == losses(rest.run)


def test_the_command_line_trains_chats_and_reports(capsys):
    small = ["--depth", "1", "--vocab-size", "400", "--device", "cpu", "--dtype", "float32"]
    sizes = [f"--{stage}.num-iterations=2" for stage in STAGES] + [
        "--rl.examples-per-step=2",
        "--rl.eval-examples=4",
    ]
    assert main(["run", "--tag", "cli", "--profile", "smoke", *small, *sizes]) == 0
    out = capsys.readouterr().out
    assert "step 00002/00002 (100.00%) | loss: " in out and "tok/sec: " in out
    assert "Report card of cli" in out and "bits per byte" in out
    assert main(["run", "--tag", "cli", "--profile", "smoke", *small, *sizes]) == 0
    assert "not used" not in (again := capsys.readouterr().out) and "already trained" in again
    assert main(["sft", "--tag", "cli"]) == 0
    assert "not used" not in capsys.readouterr().out
    assert main(["sft", "--tag", "cli", "--matrix-lr", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "Your other settings were not used" in out and str(run_dir("cli") / "sft") in out
    assert main(["chat", "--source", "rl", "--model-tag", "cli", "-p", "Hello", "--max-tokens", "5"]) == 0
    assert main(["runs"]) == 0
    assert "cli" in capsys.readouterr().out
    assert main(["chat", "--model-tag", "nobody", "-p", "Hello"]) == 1
    assert "has no rl checkpoint" in capsys.readouterr().err


def test_a_chat_in_the_terminal_begins_anew_and_ends_as_asked(monkeypatch, capsys):
    train("base", "talk")
    train("mid", "talk")
    read = []

    def remember(self, ids, **settings):
        read.append(list(ids))
        yield "Well."

    monkeypatch.setattr("nanolab.engine.Engine.stream_text", remember)

    def talk(*lines: str) -> str:
        entered = iter(lines)
        monkeypatch.setattr("builtins.input", lambda prompt: next(entered))
        assert main(["chat", "--source", "mid", "--model-tag", "talk", "--max-tokens", "4"]) == 0
        assert not list(entered), "it left before all was said"
        return capsys.readouterr().out

    out = talk("Hi", "Hi", "clear", "Hi", "quit")
    first, second, third = read
    assert len(second) > len(first) and third == first
    assert out.count("bot: Well.") == 3 and "a new conversation" in out
    talk("exit")
    talk("")
    assert len(read) == 3
    assert main(["chat", "--source", "mid", "--model-tag", "talk", "-p", "clear", "--max-tokens", "4"]) == 0
    assert len(read) == 4, "with -p every text is a question"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_report_card_has_columns_on_a_terminal_and_is_markdown_elsewhere(terminal, monkeypatch, capsys):
    monkeypatch.setattr("rich.console.Console.is_terminal", terminal)
    say_markdown("| a | b |\n| --- | ---: |\n| 1 | 2 |\n\n" + quoted("So 6 + 7 = 13.\n#### 13"))
    out = capsys.readouterr().out
    assert ("| --- |" in out) is not terminal and ("\\#### 13" in out) is not terminal
    assert "#### 13" in out and "So 6 + 7 = 13." in out


def test_a_quoted_reply_keeps_its_lines_and_has_no_heading():
    html = MarkdownIt().render(quoted("<<6+7=13>>13 apples.\n#### 13"))
    assert "<h4>" not in html and "#### 13" in html and "<br" in html and "&lt;&lt;6+7=13" in html


def test_command_line_errors_are_one_paragraph(capsys):
    assert main(["run", "--profile", "huge"]) == 1
    error = capsys.readouterr().err
    assert "no profile 'huge'" in error and "Traceback" not in error
    assert main(["base", "--model-tag", "../x"]) == 1
    assert "cannot name a run" in capsys.readouterr().err


def test_lab_opens_the_course_with_the_challenges_in_reach(monkeypatch):
    called, places, spins = [], [], []

    def call(command, env):
        called.extend(command)
        places.append(env["JUPYTER_CONFIG_PATH"])
        spins.append(env.get("GOMP_SPINCOUNT"))
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "the-learners-own")
    assert main(["lab"]) == 0
    assert spins == [os.environ.get("GOMP_SPINCOUNT")], "a notebook may load torch before nanolab"
    (root,) = (Path(argument.split("=")[1]) for argument in called if "root_dir=" in argument)
    (page,) = (argument.split("/lab/tree/")[1] for argument in called if "default_url=" in argument)
    assert (root / page).is_file() and (root / "challenges").is_dir()
    ours, theirs = places[0].split(os.pathsep)
    assert theirs == "the-learners-own"
    page = json.loads(Path(ours, "labconfig", "page_config.json").read_text(encoding="utf-8"))
    assert page["disabledExtensions"]["@jupyterlab/apputils-extension:announcements"], (
        "it asks for the network"
    )
