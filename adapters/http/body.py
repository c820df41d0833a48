"""Read a job from the body of a request."""

from __future__ import annotations

import asyncio
import json

from fastapi import Request
from starlette.requests import ClientDisconnect

from handler.errors import Cancelled, InvalidJob

#: A job is a few URLs and at most 16 KiB of metadata.
LIMIT_BYTES = 1024**2
#: How long a body may take to arrive.
PATIENCE_SECONDS = 30.0


async def read_job(request: Request, patience_seconds: float = PATIENCE_SECONDS) -> object:
    """Read the body as JSON, whatever it is called; raise :class:`InvalidJob` if it is none."""
    try:
        async with asyncio.timeout(patience_seconds):
            body = await _read(request)
        return json.loads(body)
    except TimeoutError:
        reason = f"The body did not arrive within {patience_seconds:g} s."
    except RecursionError:
        reason = "The body is nested too deeply."
    except ValueError as error:
        reason = f"The body is not JSON: {error}"
    except ClientDisconnect:
        raise Cancelled("The caller hung up.") from None
    raise InvalidJob(reason, field=None)


async def _read(request: Request) -> bytes:
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= LIMIT_BYTES:
            body += chunk
    # A caller that is still sending would not hear the answer: hence to the end.
    if size > LIMIT_BYTES:
        raise InvalidJob(f"The body has {size} bytes; a job has at most {LIMIT_BYTES}.", field=None)
    return bytes(body)
