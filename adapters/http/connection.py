"""A connection that is not kept for whoever never gets to the point."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: How long a caller may take to ask for something, at least; at most twice as long.
HEAD_SECONDS = 15.0


class HurriedConnection(H11Protocol):
    """Hang up on a caller that does not ask for anything: uvicorn would wait for ever."""

    def __init__(self, *told: Any, head_seconds: float = HEAD_SECONDS, **facts: Any) -> None:
        """Be what uvicorn says, and wait so long for the head of a request."""
        super().__init__(*told, **facts)
        self._head_seconds = head_seconds
        self._next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._look_later(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        if self._next_look:
            self._next_look.cancel()
        super().connection_lost(exc)

    def _look_later(self, answered: object) -> None:
        self._next_look = self.loop.call_later(self._head_seconds, self._look, answered)

    def _look(self, answered: object) -> None:
        """Hang up if nothing was asked for since the last look, when this was answered last."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is answered:
            self.transport.close()
        else:
            self._look_later(self.cycle if idle else self)
