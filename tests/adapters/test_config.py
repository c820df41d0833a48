"""Settings: read once, from any mapping; what is wrong is named, what is secret is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapters.config import Config, ConfigError, EngineName

BUCKET = {"B2_KEY_ID": "key", "B2_APP_KEY": "s3cr3t", "B2_BUCKET_NAME": "videos"}


def test_without_a_word_the_worker_is_a_production_worker() -> None:
    config = Config.from_env({})

    assert config.engine is EngineName.MUSETALK
    assert config.weights_dir == Path("/weights")
    assert config.job_timeout_sec == 1800
    assert config.b2_prefix == "avatar/outputs"
    assert config.output_url_template == "https://f000.backblazeb2.com/file/{bucket}/{key}"
    assert (config.allow_http, config.allow_private_hosts) == (False, frozenset())
    assert config.worker_id


def test_a_variable_that_is_set_to_nothing_counts_as_not_set() -> None:
    assert Config.from_env({"B2_PREFIX": "", "JOB_TIMEOUT_SEC": ""}).b2_prefix == "avatar/outputs"


def test_variables_of_other_programs_are_none_of_our_business() -> None:
    assert Config.from_env({"HOME": "/root", "ORCHESTRATOR": "x"}).provider == "unknown"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MUSETALK_ENGINE", "wav2lip"),
        ("JOB_TIMEOUT_SEC", "soon"),
        ("JOB_TIMEOUT_SEC", "0"),
        ("MAX_PIXELS", "4K"),
        ("ALLOW_HTTP", "perhaps"),
        ("AVATAR_CACHE_MB", "-1"),
    ],
)
def test_a_bad_value_stops_the_start_and_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(name)):
        Config.from_env({name: value})


def test_a_secret_is_never_printed() -> None:
    env = {**BUCKET, "WEBHOOK_SECRET": "whsec_dG9wIHNlY3JldA=="}

    config = Config.from_env(env)

    with pytest.raises(ConfigError) as caught:
        Config.from_env({**env, "MAX_FPS": "many"})
    for text in (repr(config), str(config), str(caught.value)):
        assert "s3cr3t" not in text
        assert "whsec" not in text


@pytest.mark.parametrize("missing", sorted(BUCKET))
def test_half_a_bucket_stops_the_start_and_names_the_other_half(missing: str) -> None:
    env = {name: value for name, value in BUCKET.items() if name != missing}

    with pytest.raises(ConfigError, match=missing):
        Config.from_env(env)


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("false", frozenset()),
        ("minio.lan", frozenset({"minio.lan"})),
        ("127.0.0.1, Media.LAN ,", frozenset({"127.0.0.1", "media.lan"})),
    ],
)
def test_private_hosts_are_a_list_of_names(value: str, hosts: frozenset[str]) -> None:
    assert Config.from_env({"ALLOW_PRIVATE_HOSTS": value}).allow_private_hosts == hosts


def test_the_worker_goes_by_the_first_of_its_names() -> None:
    names = ["WORKER_ID", "RUNPOD_POD_ID", "VAST_CONTAINERLABEL", "BUFFER_WORKER_ID"]
    env: dict[str, str] = {}

    for name in names:
        env[name] = name.lower()
        assert Config.from_env(env).worker_id == name.lower()


def test_either_name_of_the_gpu_class_is_heard() -> None:
    both = {"GPU_CLASS_NAME": "RTX-local-buffer", "GPU_CLASS": "other"}

    assert Config.from_env(both).gpu_class == "RTX-local-buffer"
    assert Config.from_env({"GPU_CLASS": "other"}).gpu_class == "other"
