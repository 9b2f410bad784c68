"""Networks fail: waiting for a busy server, and saying plainly what went wrong and what to do about it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from nanolab.errors import DownloadError, NanolabError

T = TypeVar("T")
Say = Callable[[str], None]

IN_TROUBLE = (500, 502, 503, 504)
BUSY = (408, 425, 429, *IN_TROUBLE)  # the hub may well answer a little later
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt, unless the hub names its own
LONGEST_WAIT = 300.0
AGAIN = "Run the same command again later: what has arrived is kept."
NO_NETWORK = "Without any network, the profiles smoke and laptop need no download."


def hub_cache() -> Path:
    """The folder of huggingface_hub's cache: HF_HUB_CACHE, else the folder hub of HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def hub_address() -> str:
    """The hub's web address: HF_ENDPOINT, or https://huggingface.co."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def megabytes(size: int) -> str:
    """ "187 MB", "46 KB": as file managers count, in thousands."""
    if size < 1e6:
        return f"{-(-size // 1000)} KB"
    return f"{size / 1e6:,.0f} MB" if size < 1e10 else f"{size / 1e9:,.0f} GB"


def patiently(action: Callable[[], T], say: Say | None = None, busy: tuple[int, ...] = BUSY) -> T:
    """Do it; while the hub answers with a status in `busy`, wait, as long as it asks for, and do it again."""
    from huggingface_hub.errors import HfHubHTTPError

    for pause in WAITS:
        try:
            return action()
        except HfHubHTTPError as error:
            status = error.response.status_code
            asked = str(error.response.headers.get("Retry-After", ""))
            if status not in busy or (asked.isdigit() and int(asked) > LONGEST_WAIT):
                raise
            wait = float(asked) if asked.isdigit() else pause
        if say:
            say(f"{hub_address()} answered {status}: trying again in {wait:.0f} s.")
        time.sleep(wait)
    return action()


def read_url(url: str, what: str) -> bytes:
    """What a web address outside the hub holds, in one piece. Raises DownloadError.

    Compared with the length that the server announces and, where its ETag is an MD5 as on S3, with that.
    """
    from huggingface_hub.utils import get_session

    with plain_errors(what, url.split("/")[2]):
        response = get_session().get(url, timeout=10)
        response.raise_for_status()
        data = bytes(response.content)
    etag = response.headers.get("ETag", "").strip('"')
    if len(etag) == 32 and etag != hashlib.md5(data, usedforsecurity=False).hexdigest():
        raise DownloadError(f"{what}: what arrived from {url} is not what the server announced.\n{AGAIN}")
    return data


@contextlib.contextmanager
def plain_errors(what: str, server: str = "") -> Iterator[None]:
    """Turn whatever goes wrong with a download into a DownloadError that a learner can act on."""
    try:
        yield
    except NanolabError:
        raise
    except Exception as error:
        raise DownloadError(_explain(error, what, server or hub_address())) from error


def _explain(error: BaseException, what: str, server: str) -> str:
    """What went wrong and what to do about it, from an exception and those that it came from."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    names = {kind.__name__ for one in chain for kind in type(one).__mro__}
    errnos = {one.errno for one in chain if isinstance(one, OSError)}
    status = next((one.response.status_code for one in chain if hasattr(one, "response")), None)
    detail = str(chain[-1]).strip().split("\n")[0] or type(chain[-1]).__name__
    if "OfflineModeIsEnabled" in names:
        return (
            f"{what}: not on this machine yet, and HF_HUB_OFFLINE forbids to fetch it.\n"
            f"Unset HF_HUB_OFFLINE, or copy {hub_cache()} from a machine that has it. {NO_NETWORK}"
        )
    if errnos & {errno.ENOSPC, errno.EDQUOT}:
        return disk_full(f"{what} did not fit")
    if "GatedRepoError" in names or status in (401, 403):
        return (
            f"{what}: {server} does not have it, or not for everybody ({status}).\n"
            "If it asks for consent on its page there, give it and log in with: hf auth login"
        )
    if status in (404, 410):
        return (
            f"{what}: {server} does not have it ({status}).\n"
            "If HF_ENDPOINT names a mirror, try without it; else the repository has changed: update nanolab."
        )
    if status is not None:
        why = "asks to slow down" if status == 429 else "is in trouble"
        return f"{what}: {server} {why} ({status}), again and again.\n{AGAIN}"
    if "ProxyError" in names:
        return f"{what}: the proxy refused ({detail}).\nCheck HTTPS_PROXY, then run the same command again."
    if names & {"ConnectError", "ConnectTimeout", "gaierror", "ConnectionRefusedError"}:
        return (
            f"{what}: no connection to {server} ({detail}).\n"
            "Check the network (HTTPS_PROXY for a proxy, HF_ENDPOINT for a mirror), then run the same "
            f"command again. {NO_NETWORK}"
        )
    if names & {"TransportError", "RequestException", "TimeoutError", "ConnectionError"}:
        return f"{what}: the connection to {server} broke off, again and again ({detail}).\n{AGAIN}"
    if "Consistency check failed" in str(error):
        return f"{what}: less arrived from {server} than announced. Nothing of it was kept.\n{AGAIN}"
    return f"{what}: {detail} ({type(error).__name__}).\n{AGAIN}"


def disk_full(why: str) -> str:
    return (
        f"the disk with {hub_cache()} is too full: {why}. Nothing half-written was left.\n"
        "Free some room, or set HF_HOME to a folder on another disk, then run the same command again."
    )
