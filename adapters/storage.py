"""Where videos go and jobs are on record: what the settings put behind two of the core's ports."""

from __future__ import annotations

from collections.abc import Callable

from adapters.config import Config
from adapters.transfer.bucket import Bucket, s3_client
from adapters.transfer.guard import Policy
from adapters.transfer.local import DirectoryRecords, DirectoryStore
from adapters.transfer.presigned import PresignedStore
from adapters.transfer.records import S3Records
from adapters.transfer.store import S3Store
from handler.job import Job
from handler.ports import NoRecords, Records, Store


def open_storage(
    config: Config, policy: Policy, identify: Callable[[Job], str]
) -> tuple[Store, Records]:
    """Return where videos go, and where the jobs are on record that bring no place of their own.

    ``identify`` tells jobs apart; ``policy`` says where a job's own place may be.
    """
    own, records = _own_storage(config, identify)
    return PresignedStore(policy, own, stall_seconds=config.stall_sec), records


def _own_storage(config: Config, identify: Callable[[Job], str]) -> tuple[Store | None, Records]:
    if config.output_dir is not None:
        return DirectoryStore(config.output_dir), DirectoryRecords(config.output_dir)
    if config.b2_bucket_name is None:
        return None, NoRecords()
    key = config.b2_app_key.get_secret_value() if config.b2_app_key is not None else ""
    client = s3_client(config.s3_endpoint_url, config.s3_region, config.b2_key_id or "", key)
    bucket = Bucket(client, config.b2_bucket_name, config.b2_prefix, config.output_url_template)
    records = S3Records(bucket)
    return S3Store(bucket, records, identify), records
