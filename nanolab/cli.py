"""The command line: parse, call the library, print. `nanolab --help` lists the commands.

Heavy imports stay inside the commands, so that help and errors come at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nanolab import ranks
from nanolab.errors import NanolabError
from nanolab.profiles import STAGES, Profile, get_profile, override

if TYPE_CHECKING:
    from nanolab.evals import Score, TextLoss

Source = Literal["base", "mid", "sft", "rl"]
Download = Literal["tokenizer", "data", "tasks", "identity", "nanochat-d20", "nanochat-d32"]
Tag = Annotated[str, tyro.conf.arg(aliases=["--tag"])]
MaybeTag = Annotated[str | None, tyro.conf.arg(aliases=["--tag"])]
INTERRUPTED = 130


@dataclass(frozen=True)
class CommonOptions:
    """What every training command takes. What is not given comes from the run, or from the profile."""

    model_tag: Tag = "mine"
    """the run's name: checkpoints go to $NANOLAB_HOME/runs/NAME"""
    profile: str | None = None
    """smoke, laptop, workshop or gpu (default: the run's own, else $NANOLAB_PROFILE, else laptop)"""
    num_iterations: int | None = None
    """optimizer steps"""
    device_batch_size: int | None = None
    """rows per micro-batch: lower it when memory runs out"""
    init_lr_frac: float | None = None
    """all learning rates times this"""
    matrix_lr: float | None = None
    """Muon's rate, for the weight matrices"""
    embedding_lr: float | None = None
    """AdamW's rate for the embedding"""
    unembedding_lr: float | None = None
    """AdamW's rate for the head"""
    eval_every: int | None = None
    """steps between evaluations; -1 for only before and after"""
    save_every: int | None = None
    """steps between checkpoints"""
    seed: int | None = None
    device: str | None = None
    """auto, cpu, cuda or mps"""
    dtype: str | None = None
    """auto, float32 or bfloat16"""


@dataclass(frozen=True)
class StageOptions(CommonOptions):
    """Train one of the supervised stages."""

    total_batch_size: int | None = None
    """tokens per optimizer step"""
    max_seq_len: int | None = None
    """tokens per row"""
    sample_every: int | None = None
    """steps between printed samples; -1 for none"""


@dataclass(frozen=True)
class BaseOptions(StageOptions):
    """Train the base model: predict the next token of plain text."""

    depth: int | None = None
    """layers; the width is 64 times this"""
    vocab_size: int | None = None
    """tokens in the vocabulary, the nine special ones included"""
    data: str | None = None
    """text to train on: a folder of parquet, .txt or .md files, or "docstrings", or "python" """


@dataclass(frozen=True)
class RLOptions(CommonOptions):
    """Reinforce right answers to word problems (GRPO)."""

    examples_per_step: int | None = None
    """different problems per step"""
    num_samples: int | None = None
    """answers sampled for each problem"""
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    normalise_std: bool | None = None
    clip: float | None = None
    kl_weight: float | None = None
    updates_per_step: int | None = None
    shuffle_rewards: bool | None = None
    """the control: rewards dealt out at random"""


def say(text: str = "") -> None:
    print(text, flush=True)


def say_markdown(text: str) -> None:
    """Tables in columns on a terminal; the text as it is in a file or a pipe."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        say(text.rstrip())


def profile_for(tag: str, name: str | None) -> Profile:
    """The named profile; without a name the one the run was trained with, if there is a run."""
    from nanolab.paths import run_dir

    saved = run_dir(tag) / "profile.json"
    if name is None and saved.exists():
        return Profile.from_json(saved.read_text(encoding="utf-8"))
    return get_profile(name)


def describe(result: TextLoss | Score) -> str:
    from nanolab.evals import TextLoss

    if isinstance(result, TextLoss):
        return f"validation loss: {result.nats:.3f} nats | {result.bits_per_byte:.3f} bits per byte"
    return f"held-out accuracy, sampled: {result}"


def train(profile: Profile, stage: str, tag: str, *, changed: bool = False) -> bool:
    """Train one stage with its log lines; returns False when Ctrl-C stopped it.

    changed: whether other settings are asked for than the run has; a finished stage does not take them.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from nanolab.stages import open_stage

    work = open_stage(profile, stage, tag)
    total, plan = work.schedule.steps, work.plan
    if work.finished:
        say(f"{stage}: already trained ({total} steps)")
        if changed:
            say(f"Your other settings were not used. To train it anew with them, delete {work.run / stage}")
        return True
    parent = f", from {work.parent}" if work.parent else ""
    resumed = f", resumed at step {work.start}" if work.start else ""
    where = f"{work.compute.device} in {work.compute.format}"
    say(f"\n== {stage}: {total} steps on {where}{parent}{resumed}")

    def check(step: int) -> None:
        if not ranks.is_main():
            return  # under torchrun; the other processes wait in their next step
        result = work.validation()
        work.log.add(stage=stage, step=step, validation=asdict(result))
        say(f"step {step:05d} | {describe(result)}")

    if not work.start:
        check(0)
    console = Console()
    columns = (
        TextColumn(stage),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    quiet = not console.is_terminal
    # Ten frames a second, rich's default, would take the processor from the training.
    with Progress(*columns, console=console, transient=True, disable=quiet, refresh_per_second=2) as progress:
        bar = progress.add_task(stage, total=total, completed=work.start)
        for record in work.steps():
            done = record.index + 1
            progress.update(bar, completed=done)
            if done * 100 // total > record.index * 100 // total:
                say(log_line(record, total))
            if plan.eval_every > 0 and done % plan.eval_every == 0 and done < total and not work.stopped:
                check(done)
            sample_every = getattr(plan, "sample_every", -1)
            if sample_every > 0 and done % sample_every == 0:
                say(f"step {done:05d} | sample: {base_sample(work)}")
    if work.stopped:
        say(f"\nStopped at step {work.start}/{total}; everything is saved. Continue with the same command.")
        return False
    check(total)
    return True


def base_sample(work: Any, prompt: str = "The capital of France is") -> str:
    from nanolab.engine import Engine

    tokenizer = work.tokenizer
    ids = [tokenizer.get_bos_token_id(), *tokenizer.encode(prompt)]
    work.model.eval()
    text = "".join(Engine(work.model, tokenizer).stream_text(ids, max_tokens=24, temperature=0.0))
    work.model.train()
    return (prompt + text).replace("\n", " / ")


def log_line(record: Any, total: int) -> str:
    """`step 00300/30000 (1.00%) | loss: 9.847 | dt: 25ms | tok/sec: 20,382`"""
    done = record.index + 1
    head = f"step {done:05d}/{total:05d} ({100 * done / total:.2f}%)"
    if hasattr(record, "reward"):
        return (
            f"{head} | reward: {record.reward:.3f} | no variance: {record.without_variance:.0%} "
            f"| length: {record.length:.1f} | dt: {record.seconds * 1000:.0f}ms"
        )
    return (
        f"{head} | loss: {record.loss:.3f} | dt: {record.seconds * 1000:.0f}ms "
        f"| tok/sec: {record.tokens_per_second:,.0f}"
    )


def stage_command(stage: str, options: CommonOptions) -> int:
    changes = asdict(options)
    tag = changes.pop("model_tag")
    trained = profile_for(tag, None)
    profile = override(profile_for(tag, changes.pop("profile")), stage, **changes)
    if stage == "base" and profile.base.max_seq_len > profile.sequence_len:
        profile = override(profile, sequence_len=profile.base.max_seq_len)
    return 0 if train(profile, stage, tag, changed=profile != trained) else INTERRUPTED


def base(options: Annotated[BaseOptions, tyro.conf.OmitArgPrefixes]) -> int:
    """Stage 1: pretrain on plain text, from random weights."""
    return stage_command("base", options)


def mid(options: Annotated[StageOptions, tyro.conf.OmitArgPrefixes]) -> int:
    """Stage 2: midtraining on conversations, with the special tokens of a chat."""
    return stage_command("mid", options)


def sft(options: Annotated[StageOptions, tyro.conf.OmitArgPrefixes]) -> int:
    """Stage 3: supervised fine-tuning on what the assistant should say."""
    return stage_command("sft", options)


def rl(options: Annotated[RLOptions, tyro.conf.OmitArgPrefixes]) -> int:
    """Stage 4: reinforcement learning (GRPO) on word problems."""
    return stage_command("rl", options)


def run_everything(tag: str, profile: Profile) -> int:
    """Every stage, then a report card and a few words with the model; continues where it stopped."""
    import time

    from nanolab.paths import run_dir

    began = time.monotonic()
    say(f"run {tag!r}, profile {profile.name!r}, in {run_dir(tag)}")
    if profile.source == "hub":
        from nanolab.worksheet import WHAT, prepare

        say("\n== setup: tokenizer, text and tasks")
        what = [one for one in WHAT if one != "data" or not profile.data]
        say(prepare(profile.shards, (profile.mid_sizes, profile.sft_sizes), say, what))
    for stage in STAGES:
        if not train(profile, stage, tag):
            return INTERRUPTED
    if not ranks.is_main():
        return 0
    from nanolab.checkpoint import load_model
    from nanolab.engine import Engine
    from nanolab.report import PROMPTS, evaluate, log_scores, reply, report

    say("\n== report card")
    count = min(120, profile.rl.eval_examples) if profile.name != "smoke" else 24
    for stage in ("sft", "rl"):
        model, tokenizer, meta = load_model(stage, model_tag=tag)
        scores = evaluate(model, tokenizer, count=count, source=profile.source)
        log_scores(run_dir(tag), stage, meta["step"], dict(scores))
    engine = Engine(model, tokenizer)
    text = report(run_dir(tag), {question: reply(engine, question) for question in PROMPTS})
    say()
    say_markdown(text)
    say(f"\nAll of it took {(time.monotonic() - began) / 60:.1f} minutes.")
    say(f"Chat with it:  nanolab chat --model-tag {tag}")
    say("Open the course:  nanolab lab")
    return 0


def chat(
    source: Source = "rl",
    model_tag: MaybeTag = None,
    prompt: Annotated[str | None, tyro.conf.arg(aliases=["-p"])] = None,
    temperature: float = 0.0,
    top_k: int = 50,
    max_tokens: int = 128,
    seed: int = 0,
) -> int:
    """Talk to a trained model.

    Args:
        source: the stage whose model answers
        model_tag: the run (default: the newest)
        prompt: ask this one question, print the answer and leave
        temperature: 0 for the likeliest answer; 1 samples from the model as it is
        top_k: sample among the k likeliest tokens
        max_tokens: longest answer
        seed: of sampling
    """
    from nanolab.chat import render_for_completion, truncate_history
    from nanolab.checkpoint import load_model
    from nanolab.engine import Engine

    model, tokenizer, _ = load_model(source, model_tag=model_tag)
    engine = Engine(model, tokenizer)
    room = model.config.sequence_len - max_tokens
    messages: list[dict[str, str]] = []
    if prompt is None:
        say(f"{source} model, {model.num_parameters():,} parameters.")
        say("clear begins a new conversation; quit or an empty line leaves.")
    while True:
        try:
            question = prompt if prompt is not None else input("\nyou: ").strip()
        except (EOFError, KeyboardInterrupt):
            say()
            return 0
        if prompt is None and question == "clear":
            messages.clear()
            say("(a new conversation)")
            continue
        if not question or (prompt is None and question in ("quit", "exit")):
            return 0
        messages.append({"role": "user", "content": question})
        conversation = truncate_history(tokenizer, {"messages": messages}, room)
        words = []
        if prompt is None:
            print("bot: ", end="", flush=True)
        ids = render_for_completion(tokenizer, conversation)
        try:
            for piece in engine.stream_text(
                ids, max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=seed
            ):
                words.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            pass
        say()
        if prompt is not None:
            return 0
        messages.append({"role": "assistant", "content": "".join(words)})


def evaluate_command(
    source: Source = "rl", model_tag: MaybeTag = None, count: int = 200, seed: int = 0
) -> int:
    """Measure a chat model on held-out questions, words and problems.

    Args:
        source: the stage to measure
        model_tag: the run (default: the newest)
        count: questions per measure
        seed: of the sampled measure
    """
    from nanolab.checkpoint import latest_tag, load_model
    from nanolab.report import evaluate

    tag = model_tag or latest_tag(source)
    model, tokenizer, meta = load_model(source, model_tag=tag)
    data = profile_for(tag, None).source
    say(f"{source} model at step {meta['step']}, {model.num_parameters():,} parameters")
    for name, score in evaluate(model, tokenizer, count=count, seed=seed, source=data):
        say(
            f"{name:<20} {score.accuracy:>6.1%}  ± {score.standard_error:.1%}   ({score.right}/{score.total})"
        )
    return 0


def runs() -> int:
    """List the runs on this machine, newest first."""
    import datetime

    from nanolab.checkpoint import list_runs
    from nanolab.paths import home

    found = list_runs()
    if not found:
        say(f"No runs yet in {home() / 'runs'}. Start one with: nanolab run")
    for item in found:
        stages = ", ".join(f"{stage} {steps[-1]}" for stage, steps in item.stages.items())
        when = datetime.datetime.fromtimestamp(item.time).strftime("%Y-%m-%d %H:%M")
        say(f"{item.tag:<20} {when}   {stages}")
    return 0


def download(
    what: Annotated[tuple[Download, ...], tyro.conf.Positional] = (),
    profile: str = "workshop",
    shards: int | None = None,
) -> int:
    """Fetch what the workshop and gpu profiles read, with sizes first. What is there already is kept.

    Args:
        what: tokenizer, data (text for base), tasks (conversations and questions), identity; without any, all
            four; nanochat-d20 (2 GB) and nanochat-d32 (about 8 GB) are published models to compare with
        profile: whose amounts to fetch
        shards: files of text, about 90 MB each, the last for validation (default: the profile's)
    """
    from nanolab import worksheet

    models = [name for name in what if name in worksheet.PUBLISHED]
    for name in models:
        download_model(name)
    if models and len(models) == len(what):
        return 0
    chosen = get_profile(profile)
    if chosen.source != "hub":
        say(f"The profile {chosen.name} needs no download: its data is part of nanolab.")
        return 0
    sizes = (chosen.mid_sizes, chosen.sft_sizes)
    say(worksheet.prepare(shards or chosen.shards, sizes, say, what or worksheet.WHAT))
    say("nanolab run finds it without network from now on.")
    return 0


def download_model(name: str) -> None:
    """A published nanochat as a run of that name."""
    from nanolab import worksheet
    from nanolab.nanochat import import_run
    from nanolab.paths import run_dir

    if not (run_dir(name) / "sft").exists():
        folder, tokenizer = worksheet.published_files(name, say)
        import_run(folder, tokenizer, name)
    say(f"Ready. Chat with it:  nanolab chat --source sft --model-tag {name}")


def doctor(quick: bool = False) -> int:
    """Check this machine, measure its speed and advise a profile.

    Args:
        quick: leave out the measurements
    """
    from nanolab.doctor import examine

    return examine(say, quick=quick)


def bench(profile: str | None = None, worksheet: bool = True) -> int:
    """Measure the training step, the loss, generation and Muon; prints ratios within this run.

    Args:
        profile: whose sizes to use (default: laptop)
        worksheet: also measure at the worksheet's size (vocabulary 65,536)
    """
    from nanolab.bench import run_benchmarks

    run_benchmarks(say, profile, worksheet=worksheet)
    return 0


def import_command(
    folder: Annotated[Path, tyro.conf.Positional],
    model_tag: Tag,
    source: Source = "sft",
    tokenizer: Path | None = None,
) -> int:
    """Make a run of a nanochat checkpoint: model_NNNNNN.pt, meta_NNNNNN.json and tokenizer.pkl.

    Args:
        folder: where the checkpoint lies
        model_tag: the name of the new run
        source: the stage it was trained in
        tokenizer: its tokenizer.pkl (default: the one in the folder, or where nanochat keeps it)
    """
    from nanolab.nanochat import import_run

    say(f"Imported as {import_run(folder, tokenizer, model_tag, source)}")
    say(f"Chat with it:  nanolab chat --source {source} --model-tag {model_tag}")
    return 0


def export_command(
    folder: Annotated[Path, tyro.conf.Positional], source: Source = "rl", model_tag: MaybeTag = None
) -> int:
    """Write a trained model as a folder that transformers loads, and with it vLLM, TRL and the hub.

    Args:
        folder: a new folder
        source: the stage whose model to write
        model_tag: the run (default: the newest)
    """
    from nanolab.export import export_run, how_to_load

    made = export_run(model_tag, source, folder)
    say(f'Written to {made}. Load it with transformers (pip install "nanolab[export]"):')
    for line in how_to_load(made):
        say(line)
    return 0


def lab(notebook: str = "00_start_here.ipynb") -> int:
    """Open the course in JupyterLab.

    Args:
        notebook: the notebook to begin with
    """
    import json
    import os
    import subprocess

    from nanolab.paths import atomic_write, home

    # JupyterLab would look for a newer version of itself on the network, and ask whether it may for news.
    settings = home() / "jupyter" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(
        settings, json.dumps({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}})
    )
    places = [str(settings.parent.parent), *os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep)]
    # The repository is the root, so that the file browser shows the challenges too.
    root = Path(__file__).resolve().parent.parent
    course = (root / "notebooks" / notebook).exists()
    arguments = [f"--ServerApp.root_dir={root if course else Path.cwd()}"]
    if course:
        arguments.append(f"--LabApp.default_url=/lab/tree/notebooks/{notebook}")
    try:
        return subprocess.call(
            [sys.executable, "-m", "jupyterlab", *arguments],
            env={**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, places))},
        )
    except KeyboardInterrupt:
        return 0


def run_help() -> int:
    """Train every stage, then print a report card. Continues where it stopped."""
    return main(["run"])


COMMANDS: dict[str, Callable[..., int]] = {
    "run": run_help, "base": base, "mid": mid, "sft": sft, "rl": rl, "chat": chat,
    "eval": evaluate_command, "runs": runs, "download": download, "doctor": doctor, "bench": bench,
    "lab": lab, "import": import_command, "export": export_command,
}  # fmt: skip


def run_command(arguments: Sequence[str]) -> Callable[..., int]:
    """`run`, whose options are all fields of a profile, preset to the profile that the arguments name."""

    def given(*options: str) -> str | None:
        for here, following in zip(arguments, [*arguments[1:], ""], strict=True):
            option, equals, value = here.partition("=")
            if option in options:
                return value if equals else following
        return None

    chosen = profile_for(given("--tag", "--model-tag", "--model_tag") or "mine", given("--profile"))

    def run(
        tag: Annotated[str, tyro.conf.arg(aliases=["--model-tag"])] = "mine",
        profile: str = chosen.name,
        settings: Annotated[Profile, tyro.conf.arg(name="")] = chosen,
    ) -> int:
        """Train every stage, then print a report card. Continues where it stopped.

        Args:
            tag: the run's name
            profile: smoke, laptop, workshop or gpu; every setting below belongs to it
        """
        return run_everything(tag, settings)

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 after an error, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    app = tyro.extras.SubcommandApp()
    try:
        for name, command in COMMANDS.items():
            chosen = run_command(arguments) if (name, *arguments[:1]) == ("run", "run") else command
            app.command(name=name)(chosen)
        trains = arguments[:1] and arguments[0] in ("run", *STAGES)
        with ranks.joined() if trains else contextlib.nullcontext():
            return app.cli(prog="nanolab", description=__doc__.splitlines()[0], args=arguments) or 0
    except NanolabError as error:
        print(f"\nnanolab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # As after `nanolab ... | head`. Python would write what is left at its end, and stumble again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
