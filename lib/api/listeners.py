"""Where the server listens, and how many it can listen to."""

from __future__ import annotations

import resource
import socket

BACKLOG = 1024
OTHER_DESCRIPTORS = 64  # what the server has open beside its connections


def listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`, all at one port; OSError when one cannot be had.

    Port 0 takes a free one.  "", "*" and "::" are every address, of IPv4 too.
    """
    listeners: list[socket.socket] = []
    try:
        for family, address in _addresses(host):
            taken = port or (listeners[0].getsockname()[1] if listeners else 0)
            listeners.append(_listener(family, (address, taken), is_any=address == "::"))
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _addresses(host: str) -> list[tuple[int, str]]:
    """The addresses of a name; of those of two families, a system without the one has the other."""
    if host in ("", "::", "*"):
        return [(socket.AF_INET6, "::")] if has_ipv6() else [(socket.AF_INET, "0.0.0.0")]  # noqa: S104
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys((int(family), str(at[0])) for family, *_, at in found))
    families = {family for family, _ in addresses}
    if len(families) > 1 and not has_ipv6():
        return [at for at in addresses if at[0] != socket.AF_INET6]
    return addresses


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


def _listener(family: int, address: tuple[str, int], *, is_any: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_any)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def affordable_connections() -> int:
    """How many connections the limit on open files leaves, each with a file to read from."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    return max(8, (soft - OTHER_DESCRIPTORS) // 2)
