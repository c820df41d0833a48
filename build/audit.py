"""Ask an advisory service what is known of the image's packages: python build/audit.py LOCK.

The service is PyPI's own, or an OSV service that --osv-url names. Exit code 1 if anything is known
against a package, or if the service does not know one; 3 if it could not be asked at all, which
--where-possible forgives, loudly.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

#: Nothing is known, for nobody could be asked.
UNREACHABLE = 3


def main(words: Sequence[str] | None = None) -> None:
    """Print what is known, and end in :class:`SystemExit` with how bad that is."""
    parser = argparse.ArgumentParser(description="Ask what is known of the image's packages.")
    parser.add_argument("lock", help="Packages with checksums, as in image.lock.")
    parser.add_argument("--osv-url", help="Where an OSV service takes queries.")
    parser.add_argument("--where-possible", action="store_true", help="No service is no failure.")
    told = parser.parse_args(words)
    packages = _asked(told.lock, told.osv_url)
    if all("skip_reason" in package for package in packages):
        print(f"NOT AUDITED: the advisory service cannot be asked about {told.lock} from here.")
        sys.exit(0 if told.where_possible else UNREACHABLE)
    faults = [fault for package in packages for fault in _faults(package)]
    print("\n".join(faults) or f"{told.lock}: nothing is known against {len(packages)} packages.")
    sys.exit(bool(faults))


def _asked(lock: str, osv_url: str | None) -> Sequence[Any]:
    """Return what the service says of each package; nothing if it does not answer."""
    service = ["--vulnerability-service", "osv", "--osv-url", osv_url] if osv_url else []
    words = ["--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *words, *service, "--requirement", lock],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stdout:
        return list(json.loads(done.stdout)["dependencies"])
    reason = done.stderr.strip().rpartition("\n")[2]
    if lock in reason:
        sys.exit(reason)
    # Whatever else goes wrong is between it and the service: it has as many words as networks.
    print(reason, file=sys.stderr)
    return []


def _faults(package: Any) -> Sequence[str]:
    if "skip_reason" in package:
        return [f"{package['name']}: {package['skip_reason']}"]
    return [
        f"{package['name']} {package['version']}: {known['id']},"
        f" mended in {', '.join(known['fix_versions']) or 'no version yet'}; run `make lock`"
        for known in package["vulns"]
    ]


if __name__ == "__main__":
    main()
