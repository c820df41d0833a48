"""The core of the worker: ``handle(job) -> result``, and the contract it keeps.

Each name is imported when it is first asked for: pydantic alone takes a tenth of a second, which
``import handler`` should not cost those who only look.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handler.core import handle
    from handler.errors import Cancelled, ErrorType, Stage, WorkerBroken, WorkerError
    from handler.job import Job, Params
    from handler.ports import Runtime
    from handler.progress import Phase, Progress, Report
    from handler.result import Failure, Result, Success, read_result

__all__ = [
    "Cancelled",
    "ErrorType",
    "Failure",
    "Job",
    "Params",
    "Phase",
    "Progress",
    "Report",
    "Result",
    "Runtime",
    "Stage",
    "Success",
    "WorkerBroken",
    "WorkerError",
    "handle",
    "read_result",
]

_MODULES = ("core", "errors", "job", "ports", "progress", "result")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"handler.{module}"))
            if name in found:
                return found[name]
    raise AttributeError(f"module 'handler' has no attribute {name!r}")
