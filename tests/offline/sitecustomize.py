"""On PYTHONPATH, this blocks the network in every Python that starts: also in the kernels of notebooks.

    PYTHONPATH=tests/offline python -m pytest --nbval notebooks

Python reports each connection to audit hooks before it is made, whatever library asks for it, and a hook
can't be taken away again. Only what stays on this machine is let through.
"""

from __future__ import annotations

import ipaddress
import sys


class ReachedForTheNetwork(BaseException):
    """No Exception: code that catches all of those, and goes on without a network, shall fail as well."""


def is_local(host: object) -> bool:
    """Whether a host is this machine: nothing, its own name for itself, or a loopback address."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def guard(event: str, arguments: tuple) -> None:
    """Refuse to connect, to send a datagram to, or to look up, another machine. Unix sockets are paths."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and address and not is_local(address[0]):
            raise ReachedForTheNetwork(f"{event}: {address}")
    elif event == "socket.getaddrinfo" and not is_local(arguments[0]):
        raise ReachedForTheNetwork(f"{event}: {arguments[0]}")


sys.addaudithook(guard)
