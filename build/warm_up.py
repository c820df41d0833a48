"""Fill the cache of compiled networks, on a GPU like those that will use it: build/warm_up.py.

Needs no argument: what is compiled follows from the worker's own settings, of which those that
matter are MUSETALK_WEIGHTS_DIR, BATCH_SIZE, DEVICE, DTYPE and COMPILE_CACHE_DIR. Start the workers
with the same, and COMPILE=true.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from adapters.bootstrap import read_engine
from adapters.config import Config, ConfigError, EngineName

MEBIBYTE = 1024**2


def main() -> None:
    """Load the engine as a worker does, and say what that left in the cache.

    Ends in :class:`SystemExit` if it could not be loaded or left nothing.
    """
    try:
        config = Config.from_env({**os.environ, "COMPILE": "true"})
        cache = _cache(config)
        started = time.monotonic()
        parts = read_engine(config)()
    except ConfigError as error:
        sys.exit(str(error))
    seconds = time.monotonic() - started
    files = [path for path in cache.rglob("*") if path.is_file()]
    if not files:
        sys.exit(f"COMPILE_CACHE_DIR={cache} is empty after the engine was compiled.")
    size_mib = sum(path.stat().st_size for path in files) / MEBIBYTE
    print(f"{parts.name} on {parts.device}, batches of {parts.batch_size}: {seconds:.1f} s")
    print(f"{cache}: {len(files)} files, {size_mib:.1f} MiB")


def _cache(config: Config) -> Path:
    """Return the directory to fill, which workers must be able to name."""
    if config.engine is not EngineName.MUSETALK:
        raise ConfigError(f"MUSETALK_ENGINE={config.engine}: only musetalk has what to compile.")
    if config.compile_cache_dir is None:
        raise ConfigError("COMPILE_CACHE_DIR must be set: that is what is filled.")
    try:
        config.compile_cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"COMPILE_CACHE_DIR cannot be made: {error}") from error
    return config.compile_cache_dir


if __name__ == "__main__":
    main()
