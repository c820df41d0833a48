"""Where the HTTP door is, and who may come in."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import SecretStr

from adapters.config import Config, ConfigError
from adapters.http.refusals import Unauthorized


def require_token(config: Config) -> None:
    """Raise :class:`ConfigError` if other machines can knock, and no token tells who may enter."""
    if config.worker_token is None and not _is_loopback(config.host):
        raise ConfigError(
            f"WORKER_TOKEN must be set, as other machines can reach HOST={config.host}; without"
            " one the worker listens on 127.0.0.1 only."
        )


def open_listener(config: Config) -> socket.socket:
    """Listen at ``HOST`` and ``PORT``; port 0 takes a free one.

    Raises :class:`ConfigError` if that cannot be.
    """
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(f"HOST={config.host} and PORT={config.port}: {error}") from error


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listener."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Guard:
    """Let in whoever has the token, or, where there is none, whoever is on this machine."""

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token

    async def check(self, request: Request) -> None:
        """Raise :class:`Unauthorized` for everybody else."""
        if self._token is None:
            # A page that a browser on this machine has open can ask, too.
            if not _asked_here(request):
                raise Unauthorized(
                    "Without WORKER_TOKEN, this worker answers only requests made on its own"
                    " machine, to localhost, and not those of web pages elsewhere."
                )
        elif not hmac.compare_digest(_given(request), self._token.get_secret_value().encode()):
            raise Unauthorized("Send the worker's token: Authorization: Bearer <WORKER_TOKEN>.")


def _given(request: Request) -> bytes:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def _asked_here(request: Request) -> bool:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    return (
        # A name can be made up, an address on a connection cannot.
        request.client is not None
        and _is_loopback(request.client.host.removeprefix("::ffff:"))
        and _names_this_machine(f"//{host}")
        and (origin is None or _names_this_machine(origin))
    )


def _names_this_machine(url: str) -> bool:
    try:
        return _is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
