"""Downloads from a hub on 127.0.0.1, by the real huggingface_hub: whole files, or one clear sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants, file_download
from loopback import Fault, Hub, cut, hang, parquet, sha256, slow, status, wrong

from nanolab import hub as library
from nanolab import worksheet
from nanolab.errors import ConfigError, DataError, DownloadError
from nanolab.hub import Part, fetch
from nanolab.paths import home
from nanolab.tasks import CustomJSON

NAME = "main/train-00000-of-00001.parquet"
PART = Part("GSM8K", "openai/gsm8k", ("main/train-*.parquet",))
DATA = random.Random(0).randbytes(200_000)
STORAGE = f"/storage/dataset/{PART.repo}/{NAME}"
ADDRESSES = [
    pytest.param("GET", "/api/datasets/", id="listing"),
    pytest.param("HEAD", "/resolve/", id="metadata"),
    pytest.param("GET", STORAGE, id="content"),
]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """huggingface_hub reads the environment when it is imported: what it found is changed for the test."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    close_session()
    yield tmp_path / "hf" / "hub"
    close_session()


def use(endpoint: str, monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(cache, monkeypatch):
    with Hub() as server:
        server.add(PART.repo, {NAME: DATA, "README.md": b"# GSM8K\n"})
        use(server.endpoint, monkeypatch)
        yield server


@pytest.fixture
def naps(monkeypatch):
    """Seconds that somebody wanted to wait; nobody does."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def left_behind(cache: Path) -> list[str]:
    """Partial files, and anything that looks like a finished one."""
    files = [path for path in (*cache.rglob("*"), *home().rglob("*")) if path.is_file() or path.is_symlink()]
    harmless = ("lock", ".lock", "CACHEDIR.TAG", ".gitignore")
    return [str(path) for path in files if not path.name.endswith(harmless) and path.parent.name != "refs"]


def arrived(files: list[list[Path]]) -> bytes:
    ((path,),) = files
    return path.read_bytes()


def test_sizes_are_said_before_anything_is_downloaded(hub, cache):
    said = []

    def say(line: str) -> None:
        said.append(line)
        assert not hub.fetched(NAME)

    assert arrived(fetch([PART], say)) == DATA
    assert f"200 KB from {hub.endpoint} to {cache}" in said[0]
    assert "GSM8K" in said[1] and "200 KB" in said[1] and "1 file of openai/gsm8k" in said[1]


def test_what_is_there_is_found_again_without_a_word_to_the_hub(hub, monkeypatch):
    fetch([PART], [].append)
    before, said = len(hub.requests), []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert arrived(fetch([PART], said.append)) == DATA
    assert len(hub.requests) == before and not said


def test_under_torchrun_only_the_first_process_speaks(hub, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    said: list[str] = []
    assert arrived(fetch([PART], said.append)) == DATA
    assert said == []


def test_a_connection_cut_at_half_goes_on_from_there(hub, naps, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.faults.append(Fault("GET", STORAGE, cut))
    assert arrived(fetch([PART])) == DATA
    ranges = [asked for _, _, asked in hub.fetched(STORAGE)]
    assert ranges == ["", "bytes=100000-"]


def test_a_connection_that_is_always_cut_ends_in_one_clear_error(hub, cache, naps):
    hub.faults.append(Fault("GET", STORAGE, cut, times=99))
    with pytest.raises(DownloadError, match=r"GSM8K .*broke off.*\nRun the same command again"):
        fetch([PART])
    assert left_behind(cache) == []


def test_wrong_bytes_of_the_right_size_are_noticed_and_fetched_again(hub):
    hub.faults.append(Fault("GET", STORAGE, wrong))
    said = []
    assert arrived(fetch([PART], said.append)) == DATA
    assert "arrived damaged" in said[-1] and len(hub.fetched(STORAGE)) == 2


def test_wrong_bytes_twice_are_deleted(hub, cache):
    hub.faults.append(Fault("GET", STORAGE, wrong, times=2))
    with pytest.raises(DownloadError, match="damaged twice.*It was deleted") as error:
        fetch([PART])
    assert "proxy or mirror" in str(error.value)
    assert left_behind(cache) == []
    assert arrived(fetch([PART])) == DATA


def test_too_few_bytes_are_an_error_and_not_a_file(hub, cache, naps):
    hub.faults.append(Fault("GET", STORAGE, lambda handler, data: handler.send(data[:-1]), times=99))
    with pytest.raises(DownloadError, match="GSM8K"):
        fetch([PART])
    assert left_behind(cache) == []


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (Part("x", "nobody/nothing", ("*",)), "404"),
        (Part("x", PART.repo, ("main/no-*.parquet",)), "no file main/no-\\*.parquet"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, cache, part, named):
    with pytest.raises(DownloadError, match=named) as error:
        fetch([part])
    assert hub.endpoint in str(error.value) and "HF_ENDPOINT" in str(error.value)
    assert left_behind(cache) == []


def test_a_listed_file_that_is_gone_is_an_error(hub, cache, naps):
    hub.faults.append(Fault("GET", STORAGE, status(404), times=99))
    with pytest.raises(DownloadError, match=r"GSM8K \(main/train.*does not have it \(404\)"):
        fetch([PART])
    assert left_behind(cache) == [] and not naps


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_a_hub_that_asks_to_wait_is_given_that_time(hub, naps, method, path):
    hub.faults.append(Fault(method, path, status(429, Retry_After="7")))
    assert arrived(fetch([PART])) == DATA
    # huggingface_hub asks for metadata twice before it waits; it adds a second of its own.
    assert not naps or naps[0] in (7, 8)
    assert naps or method == "HEAD"


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_three_server_errors_are_waited_out(hub, naps, method, path):
    hub.faults.append(Fault(method, path, status(500), times=3))
    assert arrived(fetch([PART])) == DATA
    assert len(naps) >= 2


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
@pytest.mark.parametrize(("code", "why"), [(500, "in trouble"), (429, "asks to slow down")])
def test_a_hub_that_never_recovers_ends_in_one_clear_error(hub, cache, naps, method, path, code, why):
    hub.faults.append(Fault(method, path, status(code), times=999))
    with pytest.raises(DownloadError, match=rf"^GSM8K.*{why} \({code}\).*\nRun the same command again later"):
        fetch([PART])
    assert left_behind(cache) == []
    assert sum(naps) < 120


def test_no_route_at_all_says_what_to_do_next(cache, monkeypatch):
    with Hub() as closed:
        pass
    use(closed.endpoint, monkeypatch)
    with pytest.raises(DownloadError, match=f"no connection to {closed.endpoint}") as error:
        fetch([PART])
    assert "Check the network" in str(error.value) and "smoke and laptop need no download" in str(error.value)
    assert left_behind(cache) == []


def test_offline_mode_is_obeyed_and_named(hub, cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="GSM8K: not on this machine yet, and HF_HUB_OFFLINE"):
        fetch([PART])
    assert not hub.requests


def test_files_that_somebody_else_put_into_the_cache_serve_without_network(hub, monkeypatch):
    file_download.hf_hub_download(PART.repo, NAME, repo_type="dataset")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert arrived(fetch([PART])) == DATA


def test_a_damaged_file_in_the_cache_is_not_used(hub, monkeypatch):
    path = Path(file_download.hf_hub_download(PART.repo, NAME, repo_type="dataset")).resolve()
    path.write_bytes(DATA[:-1] + b"?")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        fetch([PART])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert arrived(fetch([PART])) == DATA


def test_a_full_disk_is_said_before_the_download_where_it_can_be_known(hub, cache, monkeypatch):
    usage = type("Usage", (), {"free": 150_000})
    monkeypatch.setattr(library.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match="200 KB are needed and 150 KB are free.*\n.*set HF_HOME"):
        fetch([PART])
    assert not hub.fetched(STORAGE) and left_behind(cache) == []


def test_a_disk_that_fills_up_leaves_nothing(hub, cache, monkeypatch):
    original = file_download.http_get

    class Full:
        def __init__(self, file) -> None:
            self.file = file

        def write(self, data: bytes) -> None:
            self.file.write(data[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        file_download, "http_get", lambda url, file, **rest: original(url, Full(file), **rest)
    )
    with pytest.raises(DownloadError, match="too full: GSM8K .* did not fit. Nothing half-written was left"):
        fetch([PART])
    assert left_behind(cache) == []
    monkeypatch.undo()


def test_two_downloads_at_once_fetch_once(hub):
    hub.faults.append(Fault("GET", STORAGE, slow))
    said: list[str] = []
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(arrived(fetch([PART], said.append)))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while not any("waiting" in line for line in said) and time.monotonic() < deadline:
        time.sleep(0.01)
    hub.release.set()
    for thread in threads:
        thread.join(30)
    assert results == [DATA, DATA]
    assert len(hub.fetched(STORAGE)) == 1
    assert "Another nanolab is downloading at the moment: waiting until it is done." in said


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    """The variables that a learner would set, for a process of its own."""
    return os.environ | {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache.parent), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*",
        "HF_HUB_DISABLE_TELEMETRY": "1", "NANOLAB_HOME": str(home()), "NANOLAB_IDENTITY_URL": f"{hub.endpoint}/identity",
    }  # fmt: skip


def test_a_killed_download_leaves_no_trace_after_the_next_one(hub, cache):
    hub.add(worksheet.TOKENIZER.repo, {"tokenizer.pkl": DATA}, "model")
    hub.faults.append(Fault("GET", "/storage/model/", hang))
    command = [sys.executable, "-m", "nanolab", "download", "tokenizer"]
    process = subprocess.Popen(
        command, env=environment(hub, cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not hub.fetched("/storage/model/") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.communicate()
    assert len(list(cache.rglob("*.incomplete"))) == 1, "the kill came too late to prove anything"
    assert not list(home().rglob("*.json"))
    assert worksheet.tokenizer_file().read_bytes() == DATA
    assert not list(cache.rglob("*.incomplete"))


def test_a_repository_is_read_in_the_version_it_was_first_read_in(hub):
    fetch([PART])
    first = hub.repositories["dataset", PART.repo].commit
    other = Part("GSM8K, test", PART.repo, ("main/test-*.parquet",))
    hub.add(PART.repo, {NAME: DATA[::-1], "main/test-0.parquet": b"test"})
    ((path,),) = fetch([other])  # the old version is gone from this hub: the newest it is
    assert hub.repositories["dataset", PART.repo].commit in str(path) and first not in str(path)
    assert arrived(fetch([PART])) == DATA[::-1]


# What the profiles read


def test_the_identity_conversations_are_fetched_once_and_checked(hub, monkeypatch):
    line = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I am nanochat."}])
    hub.extra["/identity"] = (line + "\n").encode() * 3
    monkeypatch.setenv("NANOLAB_IDENTITY_URL", f"{hub.endpoint}/identity")
    assert len(CustomJSON(worksheet.identity_file())) == 3
    worksheet.identity_file()
    assert len(hub.fetched("/identity")) == 1


def other_content(handler, data: bytes) -> None:
    """Good conversations, but not those whose checksum the server tells."""
    etag = hashlib.md5(data).hexdigest()
    handler.send(data.replace(b"Ho", b"Hm"), headers={"ETag": f'"{etag}"'})


def login_page(handler, data: bytes) -> None:
    handler.send(b"<html>Welcome to Hotel Alpenblick. Please log in.</html>")


@pytest.mark.parametrize("answer", [status(404), other_content, login_page])
def test_without_them_nanolabs_own_stand_in_and_stay(hub, monkeypatch, answer):
    hub.extra["/identity"] = b'[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]\n'
    monkeypatch.setenv("NANOLAB_IDENTITY_URL", f"{hub.endpoint}/identity")
    hub.faults.append(Fault("GET", "/identity", answer, times=2))
    said = []
    own = CustomJSON(worksheet.identity_file(said.append))
    assert len(own) == worksheet.OWN_IDENTITIES and "nanolab's own stand in" in said[0]
    assert any("nanolab" in conversation["messages"][-1]["content"] for conversation in own[:20])
    with pytest.raises((DownloadError, DataError)):
        worksheet.identity_file(again=True)
    assert len(CustomJSON(worksheet.identity_file())) == worksheet.OWN_IDENTITIES
    assert len(CustomJSON(worksheet.identity_file(again=True))) == 1


@pytest.mark.parametrize("shards", [-1, 0, 1, 5_000])
def test_an_impossible_number_of_shards_is_refused(shards):
    with pytest.raises(ConfigError, match="choose 2 to"):
        worksheet.text_part(shards)


def test_checksums_of_the_loopback_are_the_hubs(hub):
    """The test server itself: huggingface_hub must see in it what it sees in the real hub."""
    info = file_download.get_hf_file_metadata(f"{hub.endpoint}/datasets/{PART.repo}/resolve/main/{NAME}")
    assert (info.etag, info.size) == (sha256(DATA), len(DATA))
    assert info.location.startswith("http://localhost:")
    assert parquet([{"a": 1}])[:4] == b"PAR1"
