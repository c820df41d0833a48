import subprocess
import sys

import handler

PUBLIC_NAMES = [
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

LIST_HEAVY_MODULES = """
import sys
import handler, handler.testing
heavy = {"torch", "numpy", "cv2", "boto3", "botocore", "runpod", "modal", "fastapi", "typer"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_the_public_names_are_pinned() -> None:
    exported = handler.__all__

    assert exported == PUBLIC_NAMES


def test_every_public_name_is_there() -> None:
    there = [name for name in handler.__all__ if hasattr(handler, name)]

    assert there == handler.__all__


def test_importing_the_core_loads_no_platform_and_no_tensor_library() -> None:
    command = [sys.executable, "-c", LIST_HEAVY_MODULES]

    listed = subprocess.run(command, check=True, capture_output=True, text=True)

    assert listed.stdout.split() == []
