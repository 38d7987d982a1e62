"""The one place that touches boto3: makes the client, calls it, and maps every foreign error.

Importing it costs a fifth of a second; only :class:`drd.stores.s3.S3Store` does, when it is made.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from drd.errors import ConfigError, StoreError, StoreRefused, StoreUnavailable
from drd.model import Secret
from drd.protocols import Clock
from drd.stores.s3_errors import Answer, Request, store_error
from drd.stores.s3_settings import S3Settings
from drd.stores.times import ignore_skew, is_sharp, skew_s, utc_now

_FOREIGN = (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError)
_VERBS = {
    "put_object": "write",
    "get_object": "read",
    "head_object": "look at",
    "list_objects_v2": "list",
    "delete_object": "delete",
    "delete_objects": "delete",
    "get_object_lock_configuration": "look at the object lock of",
}
_CREDENTIALS_HINT = (
    "give store.access_key_id and store.secret_access_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
)


class S3Client:
    """Calls S3 operations on one bucket. Thread-safe. Tries once: waiting and trying again is a wrapper's work.

    ``on_skew`` is told by how many seconds ``clock`` is ahead of the store's, of each answer that says the time.
    """

    def __init__(
        self, settings: S3Settings, *, clock: Clock = utc_now, on_skew: Callable[[float], None] = ignore_skew
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_skew = on_skew
        secrets = (settings.access_key_id, settings.secret_access_key, settings.session_token)
        self._secrets = [secret.reveal() for secret in secrets if secret is not None and secret.reveal()]
        try:
            self._client = _connect(settings)
        except (BotoCoreError, ValueError, OSError) as error:
            raise ConfigError(
                f"the store cannot be set up: {self._clean(str(error))}",
                hint="check the store section: drd config show",
            ) from error
        self._client.meta.events.register("before-call.s3.DeleteObjects", _send_md5)
        if settings.endpoint_url is not None:
            self._client.meta.events.register_last("before-parameter-build.s3", _follow_no_redirect)

    def call(
        self, operation: str, key: str = "", *, expected: frozenset[str] = frozenset(), **params: Any
    ) -> dict[str, Any] | None:
        """Call ``operation`` (boto3's name) and return its answer, a body read whole; ``key`` is for messages.

        Returns None for an error answer whose status or code is ``expected``; raises drd's store errors for others.
        """
        before = self._clock()
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._settings.bucket, **params)
            self._compare_clocks(before, answer)
            if "Body" in answer:
                with contextlib.closing(answer["Body"]) as body:
                    answer["Body"] = body.read()
        except _FOREIGN as error:
            if isinstance(error, ClientError):
                self._compare_clocks(before, error.response)
                said = self._answer(error)
                if expected & {said.code, str(said.status)}:
                    return None
            request = self.request(
                operation, key, conditional="IfNoneMatch" in params, locked="ObjectLockMode" in params
            )
            raise self._mapped(error, request) from error
        return answer

    def _compare_clocks(self, before: datetime, answer: Any) -> None:
        """Tell of the skew, by the header ``Date``, of any answer that came quickly, a refusal too."""
        after = self._clock()
        seen = _server_time(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))
        if seen is not None and is_sharp(before, after):
            self._on_skew(skew_s(before, seen, after))

    def request(self, operation: str, key: str, *, conditional: bool = False, locked: bool = False) -> Request:
        """Describe a request for messages."""
        settings = self._settings
        where = (settings.bucket, settings.folder, settings.endpoint)
        return Request(_VERBS[operation], key, *where, conditional, locked)

    def knock(self, full_key: str) -> tuple[Answer, datetime | None]:
        """Ask for an object that does not exist; return what the store said and the time on its clock.

        Any answer is a result; raises :class:`~drd.errors.StoreUnavailable` or StoreRefused when there is none.
        """
        try:
            answer = self._client.get_object(Bucket=self._settings.bucket, Key=full_key)
            answer["Body"].close()
            headers, result = answer["ResponseMetadata"]["HTTPHeaders"], Answer(200, "", "")
        except ClientError as error:
            headers, result = error.response["ResponseMetadata"].get("HTTPHeaders", {}), self._answer(error)
        except _FOREIGN as error:
            raise self._mapped(error, self.request("get_object", "")) from error
        return result, _server_time(headers.get("date", ""))

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _answer(self, error: ClientError) -> Answer:
        said = error.response["Error"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return Answer(status, str(said.get("Code", status)), self._clean(str(said.get("Message", ""))))

    def _mapped(self, error: Exception, request: Request) -> StoreError:
        if isinstance(error, ClientError):
            return store_error(self._answer(error), request)
        what, subject = f"cannot {request.verb} {request.subject}", request.subject
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            message = f"{what}: no credentials were found"
            return StoreRefused(message, op=request.verb, subject=subject, hint=_CREDENTIALS_HINT)
        reason = self._clean(str(error))
        if isinstance(error, SSLError) and (hint := _certificate_hint(reason)):
            message = f"{what}: the certificate of {request.endpoint} is not accepted"
            return StoreRefused(message, op=request.verb, subject=subject, hint=hint)
        if isinstance(error, BotoCoreError) and not isinstance(error, _TRANSPORT):
            hint = "check the store section: drd config show"
            return StoreRefused(f"{what}: {reason}", op=request.verb, subject=subject, hint=hint)
        message = f"{what}: {_transport_reason(error, reason, request.endpoint)}"
        hint = "see that the store runs and can be reached from here, and check store.endpoint_url"
        return StoreUnavailable(message, op=request.verb, subject=subject, hint=hint)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "**********")
        return " ".join(text.split())[:300]


_TRANSPORT = (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)


def _connect(settings: S3Settings) -> Any:
    def revealed(secret: Secret | None) -> str | None:
        return secret.reveal() if secret is not None else None

    style = settings.addressing_style
    if style == "auto" and settings.endpoint_url is not None:
        style = "path"  # a private endpoint seldom has a host name for each bucket
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.max_connections,
        tcp_keepalive=True,
        s3={"addressing_style": style, "us_east_1_regional_endpoint": "regional"},
        user_agent_extra="drd",
    )
    session = botocore.session.Session()
    session.register_component("data_loader", _FewServices(session.get_config_variable("data_path")))
    return boto3.session.Session(botocore_session=session).client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=revealed(settings.access_key_id),
        aws_secret_access_key=revealed(settings.secret_access_key),
        aws_session_token=revealed(settings.session_token),
        verify=str(settings.ca_file) if settings.ca_file is not None else None,
        config=config,
    )


class _FewServices(Loader):
    """Finds what botocore knows of S3 without a look into the folders of all its services, some four hundred."""

    def __init__(self, data_path: str | None) -> None:
        folders = data_path.split(os.pathsep) if data_path else []
        super().__init__([os.path.expanduser(os.path.expandvars(folder)) for folder in folders])  # noqa: PTH111

    def list_available_services(self, type_name: str) -> list[str]:
        """Name S3 and whom botocore itself asks for temporary keys: for roles, web identities and single sign-on."""
        del type_name
        return ["s3", "sts", "sso", "sso-oidc", "signin"]


def _send_md5(params: dict[str, Any], **_: Any) -> None:
    """Give a batch deletion the Content-MD5 that every S3 understands, in place of botocore's newer checksum.

    Without it older S3-compatible stores refuse the request (boto/boto3#4398).
    """
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    checksum = params["context"].get("checksum", {})
    checksum.pop("request_algorithm", None)
    checksum.pop("request_algorithm_header", None)


def _follow_no_redirect(context: dict[str, Any], **_: Any) -> None:
    """Tell botocore that it has followed a redirection to another region already.

    It asks Amazon's way which region that is, for ever where a store of one's own redirects without saying.
    """
    if "s3_redirect" in context:
        context["s3_redirect"]["redirected"] = True


def _server_time(date: str) -> datetime | None:
    try:
        return parsedate_to_datetime(date).astimezone(UTC)
    except ValueError:
        return None


def _certificate_hint(reason: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reason or "certificate verify failed" in reason:
        return "for a private authority give its PEM bundle as store.ca_file; check the host name in store.endpoint_url"
    if "WRONG_VERSION_NUMBER" in reason or "wrong version number" in reason:
        return "the store does not speak TLS on this port: use http:// in store.endpoint_url, or its TLS port"
    return ""


def _transport_reason(error: Exception, reason: str, endpoint: str) -> str:
    if isinstance(error, ConnectTimeoutError):
        return f"{endpoint} did not accept a connection in time"
    if isinstance(error, EndpointConnectionError):
        return f"no connection to {endpoint}"
    if isinstance(error, ReadTimeoutError):
        return f"{endpoint} did not answer in time"
    if isinstance(error, IncompleteReadError | ResponseStreamingError):
        return f"{endpoint} broke off in the middle of its answer"
    if isinstance(error, ResponseParserError):
        return f"{endpoint} gave an answer that is not S3's or was cut off"
    return f"the connection to {endpoint} failed ({reason})"
