"""Look hosts up without waiting for it longer than one likes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import httpcore2

from adapters.transfer.pulse import Pulse, patiently

#: After this a name counts as one that could not be looked up for now.
LOOK_UP_SECONDS = 5.0

#: How many look-ups may be under way, those included that nobody waits for any more.
LOOK_UPS_AT_ONCE = 4

#: Return the addresses of a host and port.
LookUp = Callable[[str, int], Sequence[str]]


class Resolver:
    """Asks for addresses in threads of its own, a bounded number.

    The system's look-up can be neither interrupted nor limited in time: it is left behind, and its
    thread ends when the system gives up, or with the process.
    """

    def __init__(self, look_up: LookUp, *, limit_seconds: float = LOOK_UP_SECONDS) -> None:
        self._look_up = look_up
        self._limit_seconds = limit_seconds
        self._places = threading.Semaphore(LOOK_UPS_AT_ONCE)

    def addresses(self, host: str, port: int, pulse: Pulse) -> Sequence[str]:
        """Return the addresses of a host; ``pulse`` may end the waiting.

        Raises what the look-up raises, and :class:`httpcore2.ConnectError` if it takes too long.
        """
        if not self._places.acquire(blocking=False):
            raise httpcore2.ConnectError("too many names are being looked up")
        found: Future[Sequence[str]] = Future()
        ask = threading.Thread(target=self._ask, args=(host, port, found), daemon=True)
        ask.start()
        try:
            return patiently(found.result, self._limit_seconds, pulse)
        except TimeoutError as error:
            raise httpcore2.ConnectError(
                f"the name {host!r} could not be looked up within {self._limit_seconds:g} s"
            ) from error

    def _ask(self, host: str, port: int, found: Future[Sequence[str]]) -> None:
        try:
            addresses = self._look_up(host, port)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the answer
            self._places.release()
            found.set_exception(error)
        else:
            self._places.release()
            found.set_result(addresses)
