"""RunPod's REST API, version 2, as far as a deployment needs it: the first was retired in 2026."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

API = "https://api.runpod.io/v2"
PATIENCE_SECONDS = 30.0
#: Stands where a secret stood.
MASK = "********"
#: What to do about an answer that is none.
ADVICE: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "RUNPOD_API_KEY is not, or no longer, a key: make one in the console.",
    HTTPStatus.FORBIDDEN: "The key may not do this: give it read and write access to the API.",
    HTTPStatus.NOT_FOUND: "It may have been deleted meanwhile: run this again.",
    HTTPStatus.TOO_MANY_REQUESTS: "Wait a minute and run this again.",
}


class Refused(Exception):
    """RunPod did not do what it was asked; the message says what to do."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Send the key nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Api:
    """Asks RunPod; without a key, it is taken to have nothing yet."""

    key: str | None
    #: What must not be printed even if RunPod should quote it.
    secrets: frozenset[str]
    url: str = API
    patience_seconds: float = PATIENCE_SECONDS

    def named(self, path: str, listed: str, name: str) -> dict[str, Any] | None:
        """Return the one thing of a name; raise :class:`Refused` if there are two."""
        if self.key is None:
            return None
        answer = self._ask("GET", path)
        try:
            found = [one for one in answer[listed] if one["name"] == name]
        except (KeyError, TypeError):
            raise self._foreign() from None
        if len(found) > 1:
            ids = " and ".join(one["id"] for one in found)
            raise Refused(f"{len(found)} {listed} are named {name}: delete or rename of {ids}.")
        return dict(found[0]) if found else None

    def change(self, method: str, path: str, body: Mapping[str, Any]) -> str:
        """Create or change a thing and return its id; raise :class:`Refused`, with what to do."""
        answer = self._ask(method, path, body)
        if not isinstance(answer.get("id"), str):
            raise self._foreign()
        return str(answer["id"])

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - an address that the operator gives
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=self.patience_seconds) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as refusal:
            with refusal:
                raise Refused(self._explain(refusal)) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            unknown = (
                "" if method == "GET" else " Whether it was done is not known: run this again."
            )
            raise Refused(f"{self.url} does not answer: {reason}.{unknown}") from None
        except (ValueError, TypeError):
            raise self._foreign() from None

    def _foreign(self) -> Refused:
        return Refused(f"{self.url} does not answer as RunPod does: is --api right?")

    def _explain(self, refusal: urllib.error.HTTPError) -> str:
        try:
            problem = json.load(refusal)
            words = "; ".join([problem["detail"], *problem.get("errors", [])])
        except (ValueError, TypeError, KeyError, OSError):
            words = refusal.reason
        for secret in self.secrets:
            words = words.replace(secret, MASK)
        advice = ADVICE.get(refusal.code, "")
        if refusal.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            advice = "RunPod has trouble of its own: run this again later."
        return f"RunPod answers {refusal.code}, {words}. {advice}".rstrip()
