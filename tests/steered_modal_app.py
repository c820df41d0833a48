"""What is deployed to Modal, and one more class: the same worker, its engine steered."""

from __future__ import annotations

import os

import modal
import modal.experimental

import modal_app
from adapters.bootstrap import bootstrap
from adapters.config import Config
from adapters.log import open_log
from adapters.modal_class import Jobs
from modal_app import app
from tests.steered_engine import steered

__all__ = ["SteeredWorker", "app"]


@app.cls(image=modal_app.image, secrets=[modal_app.secret], enable_memory_snapshot=True)
class SteeredWorker(modal_app.Worker._get_user_cls()):  # type: ignore[misc]
    """Run jobs as the deployed class does."""

    @modal.enter()
    def start(self) -> None:
        config = Config.from_env({**os.environ, "WORKER_ID": os.environ["MODAL_TASK_ID"]})
        runtime = steered(bootstrap(config, engine=self.engine))
        self.jobs = Jobs(runtime, open_log(), modal.experimental.stop_fetching_inputs)
