"""What RunPod looks for; the image starts the same."""  # noqa: INP001 - RunPod says where

import os
import sys

if __name__ == "__main__":
    # In a process of its own name: where it lies, this file passes for the package `handler`.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "adapters.runpod_serverless"])  # noqa: S606
