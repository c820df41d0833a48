"""Create or update a template and an endpoint on RunPod, both found again by their name.

    RUNPOD_API_KEY=... python build/deploy_runpod.py --image REGISTRY/IMAGE:VERSION --env-file FILE

What is as it should be is left alone. On RunPod a template is a preset: what it says is copied when
an endpoint is created or changed by it, so both are compared with what they should be.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from runpod_api import API, MASK, PATIENCE_SECONDS, Api, Refused

from adapters.config import Config, ConfigError
from handler.redaction import redact

#: Pools of GPUs with room for MuseTalk: 4090; L4, A5000 and 3090; L40 and L40S; A6000 and A40.
POOLS = ("ADA_24", "AMPERE_24", "ADA_48_PRO", "AMPERE_48")
#: The oldest CUDA whose driver runs the PyTorch of the image.
OLDEST_CUDA = "13.0"
#: A job that takes too long is answered by the worker; RunPod would only end it, later than that.
TIMEOUT_MARGIN_SECONDS = 30
#: Stands for what RunPod keeps under lock, and fills in as a worker starts.
REFERENCE = re.compile(r"\{\{ *RUNPOD_SECRET_\w+ *\}\}")
#: What an endpoint has from its template.
CONTAINER = ("image", "args", "disk", "env", "registry")
#: Stands for what only RunPod can tell.
TEMPLATE_TO_COME = "(the template's id)"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Brings a template and an endpoint to what they should be."""

    api: Api
    #: Whether requests are only printed.
    dry: bool
    #: What was changed so far.
    done: list[str] = field(default_factory=list)

    def run(self, template: Mapping[str, Any], endpoint: Mapping[str, Any]) -> None:
        """Create what is missing, change what differs, and say so line by line.

        Raises :class:`Refused` where RunPod does not do so; what was said before that stays.
        """
        found = self.api.named("templates", "templates", template["name"])
        changes = differences(template, found)
        template_id = self._settle("templates", template, found, changes)
        found = self.api.named("serverless", "endpoints", endpoint["name"])
        if found and found.get("type", endpoint["type"]) != endpoint["type"]:
            raise Refused(f"Endpoint {found['id']} has this name and no queue: choose a --name.")
        changes = differences(endpoint, found)
        if differences({key: template[key] for key in CONTAINER if key in template}, found):
            changes["templateId"] = template_id
        self._settle("serverless", {**endpoint, "templateId": template_id}, found, changes)

    def _settle(
        self,
        path: str,
        wanted: Mapping[str, Any],
        found: Mapping[str, Any] | None,
        changes: Mapping[str, Any],
    ) -> str:
        """Create, change or leave one thing, and return its id."""
        if found and not changes:
            print(f"{path}/{found['id']}: as it should be")
            return str(found["id"])
        request = ("PATCH", f"{path}/{found['id']}", changes) if found else ("POST", path, wanted)
        if self.dry:
            self._show(*request)
            return str(found["id"]) if found else TEMPLATE_TO_COME
        name = self.api.change(*request)
        news = f"{path}/{name}: {', '.join(changes) + ' changed' if found else 'created'}"
        self.done.append(news)
        print(news)
        return name

    def _show(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        env = {
            name: MASK if value in self.api.secrets else redact(value)
            for name, value in body.get("env", {}).items()
        }
        shown = {**body, "env": env} if "env" in body else body
        print(f"{method} {self.api.url}/{path}\n{json.dumps(shown, indent=2)}")


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields that are not as wanted, each whole."""
    if found is None:
        return dict(wanted)
    return {name: value for name, value in wanted.items() if not _same(name, value, found)}


def _same(name: str, wanted: Any, found: Mapping[str, Any]) -> bool:
    there = found.get(name)
    if name == "env":
        return bool(wanted == there)
    if isinstance(wanted, dict) and isinstance(there, dict):
        # RunPod tells more of such things than one has to say.
        return not differences(wanted, there)
    if isinstance(wanted, list) and isinstance(there, list):
        return sorted(wanted) == sorted(there)
    return bool(wanted == there)


def main() -> None:
    """Deploy, or print what would be sent; exit code 1 if RunPod refuses, 2 if a word is wrong."""
    words = _words()
    key = os.environ.get("RUNPOD_API_KEY") or None
    try:
        env = {"PROVIDER": "runpod", **read_env(words.env_file)}
        config = _checked(env)
        _check_image(words.image)
        _check_key(key, words)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    secrets = _secrets(env, config) | ({key} if key else set())
    api = Api(key, frozenset(secrets), words.api, words.patience)
    deployment = Deployment(api, dry=words.dry_run)
    try:
        deployment.run(_template(words, env), _endpoint(words, config))
    except Refused as error:
        rest = " What is told above is done; the same command goes on." if deployment.done else ""
        sys.exit(f"{error}{rest}")


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of a file of NAME=VALUE, as docker reads it with ``--env-file``.

    Raises :class:`ConfigError`, which names the line.
    """
    env = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--env-file {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            name, given, value = line.partition("=")
            if not given or not name.isidentifier():
                raise ConfigError(f"--env-file {path}, line {number}: this is no NAME=VALUE.")
            env[name] = value
    return env


def _checked(env: Mapping[str, str]) -> Config:
    """Return the settings as the worker would read them; raise :class:`ConfigError`."""
    return Config.from_env({name: REFERENCE.sub("filled-in", env[name]) for name in env})


def _check_image(image: str) -> None:
    name, _, tag = image.rpartition("/")[2].partition(":")
    if "@" not in name and tag in {"", "latest"}:
        raise ConfigError(
            f"--image {image}: name a version or a digest; workers keep old `latest`s."
        )


def _check_key(key: str | None, words: argparse.Namespace) -> None:
    if not key and not words.dry_run:
        raise ConfigError("RUNPOD_API_KEY must be set; --dry-run does without.")


def _secrets(env: Mapping[str, str], config: Config) -> set[str]:
    """Return the values that must not be printed: all but those of settings that are none."""
    plain = {
        info.alias
        for name, info in Config.model_fields.items()
        if not isinstance(getattr(config, name), SecretStr)
    }
    hidden = {value for name, value in env.items() if name not in plain}
    return {value for value in hidden if value and not REFERENCE.fullmatch(value)}


def _template(words: argparse.Namespace, env: Mapping[str, str]) -> dict[str, Any]:
    # An image does not know its own digest; workers tell it in their results.
    digest = {"IMAGE_DIGEST": words.image} if "@" in words.image else {}
    template = {
        "name": words.name,
        "image": words.image,
        # Which door of the image is opened.
        "args": "runpod",
        "disk": words.disk,
        "env": {**env, **digest},
        "serverless": True,
        "startSsh": False,
        "startJupyter": False,
    }
    return template | ({"registry": words.registry} if words.registry else {})


def _endpoint(words: argparse.Namespace, config: Config) -> dict[str, Any]:
    scaling, workers = {"type": words.scaler}, {"min": words.workers_min, "max": words.workers_max}
    if words.scaler == "QUEUE_DELAY":
        scaling["queueDelay"] = words.scaler_value
        # RunPod refuses it with the other scaler.
        workers["idleTimeout"] = words.idle_timeout
    else:
        scaling["requestCount"] = int(words.scaler_value)
    return {
        "name": words.name,
        "type": "QUEUE",
        "gpu": {"pools": words.gpu or list(POOLS), "count": 1, "minCudaVersion": OLDEST_CUDA},
        "workers": workers,
        "scaling": scaling,
        "timeout": round(1000 * (config.job_timeout_sec + TIMEOUT_MARGIN_SECONDS)),
        "flashboot": words.flashboot,
        "networkVolumes": words.network_volume,
    }


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Deploy the worker to RunPod serverless.")
    add = parser.add_argument
    add("--image", required=True, help="With a version or, better, a digest.")
    add("--env-file", type=Path, required=True, help="The worker's settings, NAME=VALUE a line.")
    add("--name", default="musetalk-worker", help="Of the template and of the endpoint.")
    add("--gpu", action="append", help=f"A pool, may be given again; {', '.join(POOLS)} if not.")
    add("--workers-min", type=int, default=0)
    add("--workers-max", type=int, default=3)
    add("--idle-timeout", type=int, default=5, help="Seconds, paid for.")
    add("--scaler", choices=("QUEUE_DELAY", "REQUEST_COUNT"), default="QUEUE_DELAY")
    add("--scaler-value", type=float, default=4, help="Seconds in the queue, or requests.")
    add("--flashboot", choices=("OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"), default="FLASHBOOT")
    add("--network-volume", action="append", default=[], help="An id, may be given again.")
    add("--disk", type=int, default=20, help="Of the container, in GB.")
    add("--registry", help="The id of the credential for a private registry.")
    add("--api", default=API)
    add("--patience", type=float, default=PATIENCE_SECONDS, help="Seconds for each answer.")
    add("--dry-run", action="store_true", help="Print what would be sent, secrets masked.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
