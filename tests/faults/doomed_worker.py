"""A worker as it is deployed behind HTTP, but for its engine and its patience with it.

``stubborn`` as its argument has it believe that its engine's process cannot be ended.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial

from adapters.bootstrap import bootstrap
from adapters.config import Config
from adapters.http_server import serve
from adapters.supervised import SupervisedEngine
from adapters.supervision.patience import Patience
from handler import Runtime
from tests.faults.fated_engine import start

#: Nobody wants to wait for what is to take too long; nor to count replacements.
HURRIED = Patience(
    stall_seconds=2.0, stop_seconds=1.0, check_seconds=3.0, reap_seconds=5.0, memory_seconds=0.0
)


def load() -> Runtime:
    """Do what a cold start does."""
    config = Config.from_env(os.environ)
    patience = replace(HURRIED, reap_seconds=0.0) if "stubborn" in sys.argv else HURRIED
    engine = SupervisedEngine(partial(start, config.without_secrets()), patience)
    return replace(bootstrap(config), engine=engine)


if __name__ == "__main__":
    serve(Config.from_env(os.environ), load)
