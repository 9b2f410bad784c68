"""What every test gets: one thread, a home of its own, and no network."""

from __future__ import annotations

import os

# Before anything imports torch: pytest-xdist runs the tests on all cores, so each worker takes one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import ipaddress
import socket

import pytest
from hypothesis import settings

# A busy machine must not fail a property; and nothing is written into the working copy.
settings.register_profile("nanolab", deadline=None, database=None)
settings.load_profile("nanolab")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Runs and data of the test go to its own folder; settings of the caller do not leak in."""
    monkeypatch.setenv("NANOLAB_HOME", str(tmp_path / "nanolab-home"))
    monkeypatch.delenv("NANOLAB_PROFILE", raising=False)


def is_local(address: object) -> bool:
    """Whether a socket address stays on this machine: a path (Unix socket) or a loopback address."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that reaches for the network fails, here as on a machine without one."""
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def guarded(self, address, original=original):
            if not is_local(address):
                raise AssertionError(f"this test reached for the network: {address}")
            return original(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)
