"""SeaweedFS as an S3 store: real signatures, digests, versioning, conditional writes, several identities."""

from __future__ import annotations

import json
import secrets
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from devstack import obtain
from devstack.server import Server, private_file
from devstack.workspace import Workspace

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client  # stubs are a development dependency
    from mypy_boto3_s3.type_defs import DeleteMarkerEntryTypeDef, ObjectVersionTypeDef

_PROBE_BUCKET = "devstack-probe"
_PROBE_KEY = "ready"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of the store; ``actions`` are SeaweedFS' words (Write includes delete)."""

    name: str
    access_key_id: str
    secret_access_key: str
    actions: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, {self.actions})"


def _identity(name: str, *actions: str) -> Identity:
    return Identity(name, f"{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(24), actions)


class SeaweedS3(Server):
    """An S3 endpoint on loopback, path-style, region ``us-east-1``.

    Identities: ``admin`` (all), ``objects`` (put, get, list, delete, no buckets of its own), ``reader`` (get, list),
    ``writer`` (put, delete; cannot read back), ``keeper`` (as ``objects``, and may lock what it puts), and ``backup``,
    ``restore``, ``prune``, which may do nothing but what a bucket's policy gives them.

    With ``certificate`` (one PEM file, key and certificate) it speaks TLS; with ``domain`` it answers to
    ``BUCKET.DOMAIN`` too.

    SSE-S3 works, and SSE-KMS with any key id (made when first named, lost when it stops).

    Acknowledged objects survive :meth:`stop`, which is a SIGKILL:
    in order, SeaweedFS takes 15 s.
    """

    kind = "seaweedfs"
    stop_signal = 9
    port_names: ClassVar[tuple[str, ...]] = (
        "port",
        "s3_grpc",
        "master",
        "master_grpc",
        "volume",
        "volume_grpc",
        "filer",
        "filer_grpc",
    )
    region = "us-east-1"

    def __init__(
        self,
        workspace: Workspace,
        *,
        name: str | None = None,
        ready_timeout_s: float = 90.0,
        certificate: Path | None = None,
        domain: str = "",
    ) -> None:
        self._weed = obtain.weed()
        self._certificate = certificate
        self._domain = domain
        self._clients: dict[tuple[str, str, int, float], S3Client] = {}
        super().__init__(workspace, name=name, ready_timeout_s=ready_timeout_s)
        self.admin = _identity("admin", "Admin", "Read", "Write", "List", "Tagging")
        self.objects = _identity("objects", "Read", "Write", "List", "Tagging")
        self.reader = _identity("reader", "Read", "List")
        self.writer = _identity("writer", "Write")
        self.keeper = _identity("keeper", *self.objects.actions, "PutObjectRetention", "GetObjectRetention")
        self.backup, self.restore, self.prune = (_identity(name) for name in ("backup", "restore", "prune"))
        self.identities = (
            *(self.admin, self.objects, self.reader, self.writer, self.keeper),
            *(self.backup, self.restore, self.prune),
        )

    @property
    def url(self) -> str:
        """Endpoint URL."""
        return f"{'https' if self._certificate else 'http'}://{self.host}:{self.port}"

    def client(self, identity: Identity | None = None, *, attempts: int = 3, timeout_s: float = 30.0) -> S3Client:
        """Return a boto3 client, as admin unless told otherwise; the same one for the same."""
        who = identity or self.admin
        kind = (self.url, who.access_key_id, attempts, timeout_s)
        if kind not in self._clients:
            self._clients[kind] = self._new_client(who, attempts, timeout_s)
        return self._clients[kind]

    def _new_client(self, who: Identity, attempts: int, timeout_s: float) -> S3Client:
        client: S3Client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=who.access_key_id,
            aws_secret_access_key=who.secret_access_key,
            verify=str(self._certificate) if self._certificate else None,
            config=Config(
                retries={"total_max_attempts": attempts},
                connect_timeout=timeout_s,
                read_timeout=timeout_s,
                s3={"addressing_style": "path"},
            ),
        )
        return client

    def fresh_bucket(self, prefix: str = "t") -> str:
        """Create an empty bucket and return its name."""
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def drop_bucket(self, name: str) -> None:
        """Delete a bucket with all objects in it, old versions and delete markers included."""
        client = self.client()
        for page in client.get_paginator("list_object_versions").paginate(Bucket=name):
            found: list[ObjectVersionTypeDef | DeleteMarkerEntryTypeDef] = []
            found += page.get("Versions", [])
            found += page.get("DeleteMarkers", [])
            for item in found:
                client.delete_object(Bucket=name, Key=item["Key"], VersionId=item["VersionId"])
        for plain in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for kept in plain.get("Contents", []):
                client.delete_object(Bucket=name, Key=kept["Key"])
        client.delete_bucket(Bucket=name)

    def prepare(self) -> None:
        """Write the identities and make the data folder."""
        (self.dir / "data").mkdir(mode=0o700, exist_ok=True)
        identities = [
            {
                "name": who.name,
                "credentials": [{"accessKey": who.access_key_id, "secretKey": who.secret_access_key}],
                "actions": list(who.actions),
            }
            for who in self.identities
        ]
        kms = {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": True}}}
        private_file(self.dir / "s3.json", json.dumps({"identities": identities, "kms": kms}))

    def environment(self) -> Mapping[str, str]:
        """One copy of each volume (or a bucket takes seven at once), a bound on memory."""
        return {
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
            "WEED_S3_SSE_KEY": "devstack-throw-away-key",
            "GOMEMLIMIT": "512MiB",
        }

    def argv(self) -> Sequence[str]:
        """Return the command line of master, volume, filer and S3 gateway in one process."""
        port = self.ports
        tls = [f"-s3.cert.file={self._certificate}", f"-s3.key.file={self._certificate}"] if self._certificate else []
        return [
            *(str(self._weed), "-logtostderr=true", "server"),
            *(f"-ip={self.host}", f"-ip.bind={self.host}", f"-dir={self.dir / 'data'}"),
            *(f"-master.port={port['master']}", f"-master.port.grpc={port['master_grpc']}"),
            *(f"-volume.port={port['volume']}", f"-volume.port.grpc={port['volume_grpc']}"),
            *("-filer", f"-filer.port={port['filer']}", f"-filer.port.grpc={port['filer_grpc']}"),
            *("-s3", f"-s3.port={port['port']}", f"-s3.port.grpc={port['s3_grpc']}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self.dir / 's3.json'}"),
            *(f"-filer.localSocket={self.dir / 'filer.sock'}", f"-s3.localSocket={self.dir / 's3.sock'}"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.max=200"),
            *("-volume.preStopSeconds=0", "-master.electionTimeout=1s", "-master.heartbeatInterval=50ms"),
            *("-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"),
            *(*tls, f"-s3.domainName={self._domain}"),
        ]

    def probe(self) -> str | None:
        """Put an object and read it back: the gateway listens long before it can store."""
        client = self.client(attempts=1, timeout_s=5)
        try:
            if _PROBE_BUCKET not in {bucket.get("Name") for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=_PROBE_BUCKET)
            client.put_object(Bucket=_PROBE_BUCKET, Key=_PROBE_KEY, Body=b"yes")
            said = client.get_object(Bucket=_PROBE_BUCKET, Key=_PROBE_KEY)["Body"].read()
            client.delete_object(Bucket=_PROBE_BUCKET, Key=_PROBE_KEY)
            client.delete_bucket(Bucket=_PROBE_BUCKET)
        except (BotoCoreError, ClientError) as error:
            return str(error)
        return None if said == b"yes" else "a probe object was read back wrong"

    def wipe(self) -> None:
        """Forget all data of the stopped server."""
        shutil.rmtree(self.dir / "data", ignore_errors=True)
