"""What every server of the tests has in common."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """Serves clients on loopback, which may leave early."""

    daemon_threads = True

    def server_bind(self) -> None:
        # Without HTTPServer's look-up of the host's name, which may take its time.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Complain of what went wrong here, and not of clients that were killed or hung up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
