"""Downloads from the Hugging Face hub: announced, verified, kept, and never half a file.

    files = fetch([Part("GSM8K", "openai/gsm8k", ("main/train-*.parquet",))])[0]

huggingface_hub does the work and keeps the files in its own cache, so that HF_ENDPOINT, HF_HOME and
HF_HUB_OFFLINE mean here what they mean everywhere. What this module adds: sizes said before anything is
fetched; every file compared with the hub's own SHA-256 (huggingface_hub looks at the size only); a note
under `home()/data/hub` of what arrived whole and in which version, so that a later run finds the same files
without network; and one plain sentence, with the next step, for whatever goes wrong.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nanolab.errors import DownloadError
from nanolab.net import (
    AGAIN,
    BUSY,
    IN_TROUBLE,
    Say,
    disk_full,
    hub_address,
    hub_cache,
    megabytes,
    patiently,
    plain_errors,
)
from nanolab.paths import atomic_write, home


@dataclass(frozen=True)
class Part:
    """Files of one repository on the hub, and what they are."""

    what: str
    """for people: "GSM8K" """
    repo: str
    """owner/name"""
    patterns: tuple[str, ...]
    """paths in the repository, or patterns such as data/train-*.parquet"""
    kind: str = "dataset"
    """dataset or model"""


class RemoteFile(NamedTuple):
    """A file as the hub describes it."""

    name: str
    size: int
    digest: str
    """SHA-256 of a large file; git's SHA-1 of a small one"""


@dataclass(frozen=True)
class Plan:
    """What a part consists of, in one version of its repository."""

    part: Part
    commit: str
    files: dict[str, list[RemoteFile]]
    """for each pattern"""

    def missing(self) -> list[RemoteFile]:
        """The files that are not in huggingface_hub's cache."""
        return [
            file
            for files in self.files.values()
            for file in files
            if _cached_path(self.part, file.name, self.commit) is None
        ]


def fetch(parts: Sequence[Part], say: Say = print) -> list[list[Path]]:
    """The local files of each part, in the order of its patterns; downloaded first where they are missing.

    `say` is told the sizes before anything is fetched. Raises DownloadError when something cannot be had;
    what had arrived whole by then is kept, and nothing else is.
    """
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks for all
        say = _silent
    found = [_kept(part) for part in parts]
    if not all(found):
        with plain_errors("the downloads"), _alone(say):
            # Looked at again: another process may have fetched them while this one waited.
            answers: dict[str, Any] = {}
            plans = [_plan(part, answers) for part in parts if _kept(part) is None]
            _announce(plans, say)
            for plan in plans:
                _fetch(plan, say)
        found = [_kept(part) for part in parts]
    return [_certain(part, files) for part, files in zip(parts, found, strict=True)]


def _silent(line: str) -> None:
    pass


def _fetch(plan: Plan, say: Say) -> None:
    """Download and verify all files of a plan, then note them as complete."""
    for files in plan.files.values():
        for file in files:
            with plain_errors(f"{plan.part.what} ({file.name})"):
                _sweep(plan.part, file)
                _fetch_file(plan, file, say)
    note = _read_note(plan.part)
    if note.get("commit") != plan.commit:
        note = {"commit": plan.commit, "files": {}, "complete": {}}
    for pattern, files in plan.files.items():
        note["files"].update({file.name: file.size for file in files})
        note["complete"][pattern] = [file.name for file in files]
    with plain_errors(plan.part.what):
        atomic_write(_note_path(plan.part), json.dumps(note, indent=1) + "\n")


def _fetch_file(plan: Plan, file: RemoteFile, say: Say) -> None:
    from huggingface_hub import hf_hub_download

    for attempt in ("first", "second"):
        # huggingface_hub itself waits for a hub that asks to slow down, but not for one in trouble.
        path = patiently(
            lambda: hf_hub_download(
                plan.part.repo, file.name, repo_type=plan.part.kind, revision=plan.commit
            ),
            say,
            IN_TROUBLE,
        )
        if _is_whole(Path(path), file):
            return
        # Both the name in the snapshot and the blob that it points to.
        for wrong in (Path(os.path.realpath(path)), Path(path)):
            wrong.unlink(missing_ok=True)
        if attempt == "first":
            say(f"{file.name} arrived damaged (its checksum is wrong): fetching it once more.")
    raise DownloadError(
        f"{plan.part.what}: {file.name} arrived damaged twice: its checksum is not the one that "
        f"{hub_address()} announces. It was deleted.\n"
        "Run the same command again; behind a proxy or mirror, try without it."
    )


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether a file is byte for byte the one that the hub describes."""
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as stream:
        if len(file.digest) == 64:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.digest
        blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        blob.update(stream.read())
    return blob.hexdigest() == file.digest


def _sweep(part: Part, file: RemoteFile) -> None:
    """Delete what a killed download left of a file, unless another program is downloading it now."""
    from filelock import FileLock, Timeout

    folder = _repo_folder(part)
    partial = list((folder / "blobs").glob(f"{file.digest}*.incomplete"))
    if not partial:
        return
    lock = folder.parent / ".locks" / folder.name / f"{file.digest}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(Timeout), FileLock(lock, timeout=0):
        for path in partial:
            path.unlink(missing_ok=True)


def _plan(part: Part, answers: dict[str, Any]) -> Plan:
    """Ask the hub which files a part has; without network, look into huggingface_hub's cache.

    A repository of which something was fetched before is read in that same version. `answers` keeps what the
    hub said of each repository, so that it is asked once.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    def ask(commit: str | None) -> Any:
        return answers.get(part.repo) or patiently(
            lambda: HfApi().repo_info(
                part.repo, repo_type=part.kind, revision=commit, files_metadata=True, timeout=30
            )
        )

    with plain_errors(part.what):
        try:
            try:
                info = ask(_read_note(part).get("commit"))
            except RevisionNotFoundError:  # another hub, or the version was deleted: begin with the newest
                info = ask(None)
        except Exception as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in BUSY:
                raise
            if plan := _plan_from_cache(part):
                return plan
            raise
    answers[part.repo] = info
    siblings = {one.rfilename: one for one in info.siblings or []}
    files = {
        pattern: [_described(siblings[name]) for name in _match(part, pattern, siblings)]
        for pattern in part.patterns
    }
    return Plan(part, info.sha, files)


def _described(sibling: Any) -> RemoteFile:
    if sibling.lfs:
        return RemoteFile(sibling.rfilename, sibling.lfs.size, sibling.lfs.sha256)
    if sibling.size is None or not sibling.blob_id:
        raise DownloadError(
            f"{hub_address()} does not tell the sizes and checksums of files, without which nothing can be "
            "verified.\nChoose another mirror with HF_ENDPOINT, or none."
        )
    return RemoteFile(sibling.rfilename, sibling.size, sibling.blob_id)


def _match(part: Part, pattern: str, files: Iterable[str]) -> list[str]:
    names = sorted(fnmatch.filter(files, pattern))
    if not names:
        raise DownloadError(
            f"{part.what}: {part.repo} on {hub_address()} has no file {pattern} (404).\n"
            "If HF_ENDPOINT names a mirror, try without it; else the repository has changed: update nanolab."
        )
    return names


def _plan_from_cache(part: Part) -> Plan | None:
    """The plan of a part whose files another program has downloaded into huggingface_hub's cache, or None.

    The blobs there are named after their checksums, by which `_fetch_file` then verifies them.
    """
    folder, commit = _repo_folder(part), _read_note(part).get("commit")
    try:
        commit = commit or (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot, files = folder / "snapshots" / commit, {}
    for pattern in part.patterns:
        paths = sorted(path for path in snapshot.glob(pattern) if path.is_file())
        # data/train-00000-of-00004.parquet tells how many there must be.
        count = paths[0].stem.rpartition("-of-")[2] if paths else ""
        if not paths or (count.isdigit() and int(count) != len(paths)):
            return None
        blobs = [path.resolve() for path in paths]
        if any(blob.parent.name != "blobs" for blob in blobs):  # copies without links: no checksum is known
            return None
        files[pattern] = [
            RemoteFile(path.relative_to(snapshot).as_posix(), blob.stat().st_size, blob.name)
            for path, blob in zip(paths, blobs, strict=True)
        ]
    return Plan(part, commit, files)


@contextlib.contextmanager
def _alone(say: Say) -> Iterator[None]:
    """Only one process at a time downloads into this home; another one waits for it."""
    from filelock import FileLock, Timeout

    folder = home() / "data" / "hub"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("Another nanolab is downloading at the moment: waiting until it is done.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _announce(plans: Sequence[Plan], say: Say) -> None:
    """Say what will be fetched and how much it is. Raises DownloadError when the disk has no room for it."""
    coming = [(plan.part, missing) for plan in plans if (missing := plan.missing())]
    total = sum(file.size for _, files in coming for file in files)
    if not coming:
        return
    cache = hub_cache()
    say(f"Downloading {megabytes(total)} from {hub_address()} to {cache}:")
    for part, files in coming:
        size = megabytes(sum(file.size for file in files))
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        say(f"  {part.what:<32} {size:>9}   {count} of {part.repo}")
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < total:
        raise DownloadError(disk_full(f"{megabytes(total)} are needed and {megabytes(free)} are free"))


def _kept(part: Part) -> list[Path] | None:
    """The files of a part that arrived whole before and are still there; None unless all are."""
    note, paths = _read_note(part), []
    for pattern in part.patterns:
        names = note.get("complete", {}).get(pattern)
        if not names:
            return None
        for name in names:
            path = _cached_path(part, name, note["commit"])
            if path is None or path.stat().st_size != note["files"].get(name):
                return None
            paths.append(path)
    return paths


def _certain(part: Part, files: list[Path] | None) -> list[Path]:
    if files is None:
        raise DownloadError(f"{part.what}: its files vanished from {hub_cache()} just now.\n{AGAIN}")
    return files


def _note_path(part: Part) -> Path:
    return home() / "data" / "hub" / f"{part.kind}s--{part.repo.replace('/', '--')}.json"


def _read_note(part: Part) -> dict[str, Any]:
    """{"commit", "files": {name: size}, "complete": {pattern: [names]}}; empty when there is none."""
    try:
        note = json.loads(_note_path(part).read_text(encoding="utf-8"))
        return note if {"commit", "files", "complete"} <= set(note) else {}
    except (OSError, ValueError, TypeError):
        return {}


def _cached_path(part: Part, name: str, commit: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(part.repo, name, repo_type=part.kind, revision=commit)
    return Path(path) if isinstance(path, str) else None


def _repo_folder(part: Part) -> Path:
    """The folder of a repository in huggingface_hub's cache."""
    return hub_cache() / f"{part.kind}s--{part.repo.replace('/', '--')}"
