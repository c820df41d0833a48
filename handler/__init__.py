"""The core of the worker: ``handle(job) -> result``, and the contract it keeps."""

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
