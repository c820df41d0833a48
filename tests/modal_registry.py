"""What was deployed to the Modal on loopback, and the procedure calls about it."""

from __future__ import annotations

import itertools
import time
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

M = TypeVar("M", bound=Message)

APP_ID = "ap-1"
#: What may be copied from a definition to what callers know of it.
PUBLIC = (
    "function_name",
    "function_type",
    "function_schema",
    "web_url",
    "supported_input_formats",
    "supported_output_formats",
)


@dataclass
class Deployed:
    """A function, or a class, as it was deployed."""

    id: str
    #: One for each GPU, in order of preference; alike in all else.
    choices: list[api_pb2.Function]

    @property
    def definition(self) -> api_pb2.Function:
        return self.choices[0]

    @property
    def tag(self) -> str:
        """Return its name; that of a class is ``Name.*``."""
        return self.definition.function_name

    @property
    def data(self) -> api_pb2.FunctionData:
        """Return it in the form in which clients get it back."""
        data = api_pb2.FunctionData(function_name=self.tag, web_url=self.definition.web_url)
        for rank, choice in enumerate(self.choices):
            data.ranked_functions.add(rank=rank).function.CopyFrom(choice)
        return data

    @property
    def metadata(self) -> api_pb2.FunctionHandleMetadata:
        """Return what callers know of it."""
        known = self.definition
        metadata = _public(api_pb2.FunctionHandleMetadata(app_id=APP_ID), known)
        metadata.class_parameter_info.CopyFrom(known.class_parameter_info)
        for name, method in known.method_definitions.items():
            described = _public(metadata.method_handle_metadata[name], method)
            described.app_id, described.is_method, described.use_method_name = APP_ID, True, name
        return metadata


def _public(target: M, source: Message) -> M:
    for name in PUBLIC:
        value = getattr(source, name)
        if isinstance(value, str | int):
            setattr(target, name, value)
        else:
            # A message, or a list.
            getattr(target, name).MergeFrom(value)
    return target


class Registry:
    """Keeps one app."""

    def __init__(self, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """Start with named secrets and nothing else."""
        self.secrets = secrets
        #: Where web functions are served, once that is known.
        self.web_url = ""
        self.functions: dict[str, Deployed] = {}
        self.class_ids: dict[str, str] = {}
        self.images: dict[str, api_pb2.Image] = {}
        #: By id, the checksums of files by the paths that they are to have.
        self.mounts: dict[str, dict[str, str]] = {}
        self.files: dict[str, bytes] = {}
        #: Volumes by the number of their commits.
        self.commits: dict[str, int] = {}
        self._ids = itertools.count(1)

    def function(self, tag: str) -> Deployed:
        """Return what was deployed under a name."""
        found = [f for f in self.functions.values() if f.tag == tag]
        if not found:
            raise GRPCError(Status.NOT_FOUND, tag)
        return found[0]

    def shipped(self, tag: str) -> dict[str, bytes]:
        """Return the files that the containers of a function have from here, by their paths."""
        mounts = [self.mounts[mount] for mount in self.function(tag).definition.mount_ids]
        return {path: self.files[sum_] for mount in mounts for path, sum_ in mount.items()}

    def image_commands(self, image_id: str) -> list[str]:
        """Return the lines of Dockerfile that make an image, those of its base first."""
        image = self.images[image_id]
        bases = [line for base in image.base_images for line in self.image_commands(base.image_id)]
        return [*bases, *image.dockerfile_commands]

    def image_files(self, image_id: str) -> dict[str, bytes]:
        """Return the files that came from here for the lines that make an image."""
        image = self.images[image_id]
        ours = {file.filename: file.data for file in image.context_files}
        bases = [self.image_files(base.image_id) for base in image.base_images]
        return dict(ChainMap(ours, *bases))

    def env(self, tag: str) -> dict[str, str]:
        """Return the variables that the image and the secrets of a function set."""
        definition = self.function(tag).definition
        lines = [line for line in self.image_commands(definition.image_id) if line[:4] == "ENV "]
        env = dict(line[4:].split("=", 1) for line in lines)
        for secret_id in definition.secret_ids:
            env |= self.secrets[secret_id.removeprefix("st-")]
        return env

    def layout(self) -> api_pb2.AppLayout:
        """Return what a container must know of the app that it belongs to."""
        layout = api_pb2.AppLayout(class_ids=self.class_ids)
        for function in self.functions.values():
            layout.function_ids[function.tag] = function.id
            layout.objects.add(object_id=function.id, function_handle_metadata=function.metadata)
        for class_id in self.class_ids.values():
            layout.objects.add(object_id=class_id).class_handle_metadata.SetInParent()
        known = {entry.object_id for entry in layout.objects}
        for function in self.functions.values():
            needed = {need.object_id for need in function.definition.object_dependencies}
            for object_id in needed - known:
                layout.objects.add(object_id=object_id)
            known |= needed
        return layout

    def new_id(self, kind: str) -> str:
        return f"{kind}-{next(self._ids)}"

    # -- procedure calls, by their names

    async def client_hello(self, _: Any) -> Any:
        return api_pb2.ClientHelloResponse()

    async def environment_get_or_create(self, _: Any) -> Any:
        settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06")
        known = api_pb2.EnvironmentMetadata(name="main", settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=known)

    async def app_get_by_deployment_name(self, _: Any) -> Any:
        return api_pb2.AppGetByDeploymentNameResponse()

    async def app_create(self, _: Any) -> Any:
        return api_pb2.AppCreateResponse(app_id=APP_ID)

    async def app_heartbeat(self, _: Any) -> Any:
        return Empty()

    async def app_client_disconnect(self, _: Any) -> Any:
        return Empty()

    async def app_publish(self, request: Any) -> Any:
        self.class_ids = dict(request.class_ids)
        return api_pb2.AppPublishResponse(deployed_at=time.time())

    async def mount_batched_check_existence(self, request: Any) -> Any:
        missing = [sum_ for sum_ in request.sha256_hex_hashes if sum_ not in self.files]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def mount_put_file(self, request: Any) -> Any:
        if request.data:
            self.files[request.sha256_hex] = request.data
        return api_pb2.MountPutFileResponse(exists=request.sha256_hex in self.files)

    async def mount_get_or_create(self, request: Any) -> Any:
        mount_id = self.new_id("mo")
        self.mounts[mount_id] = {file.filename: file.sha256_hex for file in request.files}
        known = api_pb2.MountHandleMetadata(content_checksum_sha256_hex=mount_id)
        return api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=known)

    async def image_get_or_create(self, request: Any) -> Any:
        image_id = self.new_id("im")
        self.images[image_id] = request.image
        built = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(
            image_id=image_id,
            result=built,
            metadata=api_pb2.ImageMetadata(image_builder_version=request.builder_version),
        )

    async def secret_get_or_create(self, request: Any) -> Any:
        name = request.deployment_name
        if name not in self.secrets:
            raise GRPCError(Status.NOT_FOUND, f"Secret {name!r} not found")
        if missing := set(request.required_keys) - set(self.secrets[name]):
            raise GRPCError(Status.FAILED_PRECONDITION, f"Secret {name!r} lacks {sorted(missing)}")
        return api_pb2.SecretGetOrCreateResponse(secret_id=f"st-{name}")

    async def volume_get_or_create(self, request: Any) -> Any:
        name = request.deployment_name
        self.commits.setdefault(name, 0)
        known = api_pb2.VolumeMetadata(name=name)
        return api_pb2.VolumeGetOrCreateResponse(volume_id=f"vo-{name}", metadata=known)

    async def volume_commit(self, request: Any) -> Any:
        self.commits[request.volume_id.removeprefix("vo-")] += 1
        return api_pb2.VolumeCommitResponse()

    async def function_precreate(self, request: Any) -> Any:
        known = api_pb2.FunctionHandleMetadata(
            function_name=request.function_name, function_type=request.function_type, app_id=APP_ID
        )
        for name, method in request.method_definitions.items():
            known.method_handle_metadata[name].function_name = method.function_name
            known.method_handle_metadata[name].function_type = method.function_type
        function_id = self.new_id("fu")
        return api_pb2.FunctionPrecreateResponse(function_id=function_id, handle_metadata=known)

    async def function_create(self, request: Any) -> Any:
        ranked = sorted(request.function_data.ranked_functions, key=lambda choice: choice.rank)
        choices = [choice.function for choice in ranked] or [request.function]
        for choice in choices:
            if choice.webhook_config.type:
                choice.web_url = f"{self.web_url}/{choice.function_name}"
        function = Deployed(request.existing_function_id or self.new_id("fu"), choices)
        self.functions[function.id] = function
        return api_pb2.FunctionCreateResponse(
            function_id=function.id,
            function=function.definition,
            function_data=function.data,
            handle_metadata=function.metadata,
        )

    async def function_get(self, request: Any) -> Any:
        function = self.function(request.object_tag)
        return api_pb2.FunctionGetResponse(
            function_id=function.id, function=function.data, handle_metadata=function.metadata
        )

    async def class_create(self, _: Any) -> Any:
        known = api_pb2.ClassHandleMetadata()
        return api_pb2.ClassCreateResponse(class_id=self.new_id("cs"), handle_metadata=known)

    async def class_get(self, request: Any) -> Any:
        known = api_pb2.ClassHandleMetadata()
        class_id = self.class_ids[request.object_tag]
        return api_pb2.ClassGetResponse(class_id=class_id, handle_metadata=known)
