"""Ask the worker beside which this runs whether it is well: exit 0 if /hc says so, else 1.

Python, for the image has no other program that speaks HTTP. It asks without a proxy, whatever the
environment names, and without a token: /hc answers everybody.
"""

from __future__ import annotations

import http.client
import os
import sys

#: Shorter than the patience of the Dockerfile's HEALTHCHECK.
PATIENCE_SECONDS = 4


def main() -> None:
    """Ask at PORT of this machine, and end with the answer."""
    port = int(os.environ.get("PORT", "8000"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/hc")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"Nobody answers at port {port}: {error}")
    print(answer.read().decode(errors="replace"))
    sys.exit(answer.status != http.client.OK)


if __name__ == "__main__":
    main()
