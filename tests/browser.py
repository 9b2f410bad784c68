"""JupyterLab in a real browser, for tests: a server of its own, a page, and what a learner does with them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
]  # fmt: skip
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
# JupyterLab says idle before there is a kernel; a command given then opens a dialog that waits for ever.
READY = """() => {
    const context = window.jupyterapp?.shell?.currentWidget?.context?.sessionContext;
    const kernel = context?.session?.kernel;
    return !!(context?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle');
}"""


def chromium() -> str | None:
    """The browser of this machine, where there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def jupyterlab(folder: Path, private: Path, **environment: str) -> Iterator[str]:
    """Run JupyterLab on `folder`; yields an address with `{}` for the notebook's name.

    Its settings and what it writes for itself go to `private`. `environment` is for the kernels too.
    """
    port, token = free_port(), secrets.token_hex(16)
    places = {
        name: str(private / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR",
        )
    }  # fmt: skip
    for name, values in SETTINGS.items():
        path = Path(places["JUPYTERLAB_SETTINGS_DIR"], f"{name}.jupyterlab-settings")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    log = private / "jupyterlab.log"
    # Not `python -m jupyter lab`: that may find the JupyterLab of another installation.
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--allow-root",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with log.open("w") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=folder,
            env=os.environ | places | {"JUPYTER_TOKEN": token} | environment,
        )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{base}/api?token={token}", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                lives = server.poll() is None and time.monotonic() < end
                assert lives, f"JupyterLab did not start:\n{log.read_text()}"
                time.sleep(0.1)
        yield f"{base}/doc/tree/{{}}?token={token}&reset"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


class Lab:
    """A notebook in a browser page, and what a learner does there. Times are in seconds."""

    def __init__(self, page, address: str, pictures: Path) -> None:
        self.page, self.address, self.pictures = page, address, pictures

    def open(self, notebook: str) -> None:
        """Open a notebook and wait until its kernel listens."""
        self.page.goto(self.address.format(notebook))
        self.page.wait_for_function(READY, timeout=120_000)

    def run_all(self) -> None:
        """Start all cells; `wait_until_run` waits for their end."""
        self.page.evaluate(
            "() => { window.hasRun = false; jupyterapp.commands.execute('notebook:run-all-cells')"
            ".finally(() => { window.hasRun = true; }); }"
        )

    def cells_run(self) -> int:
        """How many code cells have come to their end."""
        return self.page.evaluate(
            "() => [...jupyterapp.shell.currentWidget.content.widgets]"
            ".filter((cell) => cell.model.type === 'code' && cell.model.executionCount).length"
        )

    def wait_for_cells(self, count: int, seconds: float = 200) -> None:
        """Wait until `count` code cells in all have come to their end."""
        end = time.monotonic() + seconds
        while self.cells_run() < count:
            assert time.monotonic() < end and not self.errors(), f"{self.cells_run()} cells: {self.errors()}"
            self.page.wait_for_timeout(100)

    def wait_until_run(self, seconds: float = 200) -> None:
        self.page.wait_for_function("() => window.hasRun", timeout=1000 * seconds)
        self.page.wait_for_function(READY, timeout=1000 * seconds)

    def watch_pictures(self) -> None:
        """From now on count the pictures that come up in outputs; what stands there already is none."""
        self.page.evaluate(
            """() => {
                const shown = () => [...document.querySelectorAll('.jp-OutputArea-output :is(img, svg)')]
                    .map((one) => one.src || one.outerHTML);
                const before = new Set(shown());
                window.framesSeen = new Set();
                setInterval(() => shown().filter((one) => !before.has(one))
                    .forEach((one) => window.framesSeen.add(one)), 50);
            }"""
        )

    def wait_for_pictures(self, count: int, seconds: float = 60) -> None:
        self.page.wait_for_function(f"() => window.framesSeen.size >= {count}", timeout=1000 * seconds)

    def stop(self) -> None:
        """Press the Stop button of the notebook's toolbar."""
        self.page.locator('[data-command="notebook:interrupt-kernel"]').first.click()

    def errors(self) -> list[str]:
        """What went wrong: the errors of all cells, and widgets that could not be shown."""
        return self.page.evaluate(
            """() => {
                const cells = [...jupyterapp.shell.currentWidget.content.widgets];
                const outputs = cells.flatMap((cell) => cell.model.sharedModel.outputs ?? []);
                const found = outputs.filter((one) => one.output_type === 'error')
                    .map((one) => `${one.ename}: ${one.evalue}`);
                const shown = [...document.querySelectorAll('.jp-OutputArea-output')].map((one) => one.innerText);
                return [...found, ...shown.filter((text) => text.startsWith('Error displaying widget'))];
            }"""
        )

    def picture(self, name: str, target=None) -> None:
        """Keep a screenshot of the page, or of one thing in it."""
        (target or self.page).screenshot(path=self.pictures / f"{name}.png")

    def until(self, script: str, argument=None, seconds: float = 30) -> float:
        """Wait for a JavaScript condition; returns after how many seconds it held."""
        began = time.perf_counter()
        self.page.wait_for_function(script, arg=argument, timeout=1000 * seconds)
        return time.perf_counter() - began


@contextmanager
def lab(folder: Path, private: Path, pictures: Path, **environment: str) -> Iterator[Lab]:
    """JupyterLab on `folder` in a page of this machine's browser. Screenshots go to `pictures`."""
    from playwright.sync_api import sync_playwright

    assert chromium(), "there is no chromium on this machine: install Debian's package chromium, or Chrome"
    pictures.mkdir(parents=True, exist_ok=True)
    with jupyterlab(folder, private, **environment) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 1100})
        page.set_default_timeout(30_000)
        try:
            yield Lab(page, address, pictures)
        finally:
            browser.close()
