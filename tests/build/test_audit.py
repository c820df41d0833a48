"""What is known against the image's packages, asked of an advisory service on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.build_scripts import Done, run_script
from tests.loopback_server import LoopbackServer

CHECKSUM = f"--hash=sha256:{'0' * 64}"
#: As the service's format has it (OSV 1.7).
HOLE = {
    "id": "GHSA-7",
    "summary": "Reads what it should not.",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0.1"}]}],
        }
    ],
}


class Advisories(BaseHTTPRequestHandler):
    """Knows of one package that it has a hole."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {"vulns": [HOLE]} if asked["package"]["name"] == "leaky" else {}
        content = json.dumps(known).encode()
        self.send_response(503 if asked["package"]["name"] == "unlucky" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def service() -> Iterator[str]:
    """Return the address of a service."""
    with LoopbackServer(("127.0.0.1", 0), Advisories) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> str:
    """Return an address where nobody answers."""
    with LoopbackServer(("127.0.0.1", 0), Advisories) as server:
        return f"http://127.0.0.1:{server.server_port}/v1/query"


def audit(place: Path, service: str, *words: str, packages: tuple[str, ...]) -> Done:
    """Have a lock of some packages audited."""
    lock = place / "some.lock"
    lock.write_text("".join(f"{name}==1.0 {CHECKSUM}  # 7 bytes\n" for name in packages))
    return run_script("audit", f"{lock}", "--osv-url", service, *words, HOME=f"{place}")


def test_packages_that_nothing_is_known_against_pass(tmp_path: Path, service: str) -> None:
    done = audit(tmp_path, service, packages=("sound", "solid"))

    assert done.returncode == 0, done.stderr
    assert "nothing is known against 2 packages" in done.stdout


def test_a_package_with_a_hole_is_named_with_what_mends_it(tmp_path: Path, service: str) -> None:
    done = audit(tmp_path, service, "--where-possible", packages=("sound", "leaky"))

    assert done.returncode == 1, done.stderr
    assert done.stdout == "leaky 1.0: GHSA-7, mended in 1.0.1; run `make lock`\n"


def test_an_audit_that_asked_nobody_is_not_taken_for_one(tmp_path: Path, nobody: str) -> None:
    done = audit(tmp_path, nobody, packages=("sound",))
    forgiven = audit(tmp_path, nobody, "--where-possible", packages=("sound",))

    assert (done.returncode, forgiven.returncode) == (3, 0)
    assert "NOT AUDITED" in done.stdout
    assert "NOT AUDITED" in forgiven.stdout


def test_a_service_in_trouble_is_no_answer(tmp_path: Path, service: str) -> None:
    done = audit(tmp_path, service, "--where-possible", packages=("unlucky", "sound"))

    assert done.returncode == 0
    assert "NOT AUDITED" in done.stdout


def test_a_lock_that_is_not_there_is_named(tmp_path: Path, service: str) -> None:
    done = run_script("audit", "no.lock", "--osv-url", service, HOME=f"{tmp_path}")

    assert done.returncode == 1
    assert "no.lock" in done.stderr
