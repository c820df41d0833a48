"""A worker as it is deployed, except that its engine is steered; its argument names its door."""

from __future__ import annotations

import os
import sys

from adapters import http_server, local_worker, runpod_serverless
from adapters.bootstrap import bootstrap
from adapters.config import Config
from adapters.log import open_log
from adapters.runpod_sdk import import_sdk
from handler.ports import Runtime
from tests.drive_poll_loop import BRISK
from tests.steered_engine import steered


def load() -> Runtime:
    """Do what a cold start does."""
    return steered(bootstrap(Config.from_env(os.environ)))


def open_door(name: str) -> int:
    """Take jobs until told to stop."""
    match name:
        case "runpod":
            runpod_serverless.serve(import_sdk(), load, open_log())
        case "http":
            http_server.serve(Config.from_env(os.environ), load)
        case "poll loop":
            return local_worker.main(Config.from_env(os.environ), load, BRISK)
    return 0


if __name__ == "__main__":
    sys.exit(open_door(sys.argv[1]))
