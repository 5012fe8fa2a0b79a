"""Backups in a bucket of S3, or of another server with the same API; boto3 reads the variables AWS_….

Uploads are multipart: an object does not exist before its last part is there. The SHA-256 of a part is a header of its
request: boto3 would append it, which S3 refuses where objects are locked (https://github.com/s3tools/s3cmd/issues/1436).
"""

import base64
import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
from botocore import exceptions  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

from .store import StoreError

PART_BYTES = 48 << 20  # held in memory; S3 takes 10,000 parts, so a backup has at most 503 GB
CONNECT_SECONDS = 5
READ_SECONDS = 30  # without a byte
MAX_ATTEMPTS = 3
MAX_VERSIONS = 1000  # of one name
REFUSED = (exceptions.BotoCoreError, exceptions.ClientError)
CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is given"
REGION = "the bucket is in another region: correct AWS_REGION"
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
ADVICE = {
    "403": "access denied: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and the permissions of docs/backups.md",
    "AccessDenied": "access denied: give the key the permissions of docs/backups.md",
    "AuthorizationHeaderMalformed": REGION,
    "ExpiredToken": f"the credentials have expired: {CREDENTIALS}",
    "InvalidAccessKeyId": "the server does not know the key: correct AWS_ACCESS_KEY_ID",
    "InvalidRequest": "the request is refused: with BACKUP_LOCK_DAYS, the bucket needs Object Lock",
    "NoSuchBucket": "there is no such bucket: create it, or correct BACKUP_URL",
    "NoSuchKey": "there is no such object",
    "PermanentRedirect": REGION,
    "RequestTimeTooSkewed": "the clock of this machine is wrong: type timedatectl",
    "SignatureDoesNotMatch": "the secret is not the one of the key: correct AWS_SECRET_ACCESS_KEY",
}


class Bucket:
    """Objects below a prefix; `lock_days` keeps each of them from being deleted by anybody."""

    def __init__(self, client: Any, bucket: str, prefix: str, lock_days: int) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._lock_days = lock_days

    def names(self) -> list[str]:
        """Return the names of all objects, sorted."""
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            return sorted(each["Key"][len(self._prefix) :] for page in pages for each in page.get("Contents", ()))

    def read(self, name: str) -> io.BufferedIOBase:
        """Open an object; a connection that is cut is opened again where it was."""

        def get(start: int = 0, **version: str) -> Any:
            more = {"Range": f"bytes={start}-", **version} if start else {}
            with self._explained(name):
                return self._client.get_object(**self._target(name), **more)

        return io.BufferedReader(_Download(get, get(), self._url(name)), 1 << 20)

    def write(self, name: str, source: io.BufferedIOBase, *, lock: bool = True) -> None:
        """Store all of `source`.

        If only the response to the last request is lost, the object is there, and whole.
        """
        with self._explained(name):
            upload = self._target(name)
            retention = self._retention() if lock else {}
            made = self._client.create_multipart_upload(**upload, ChecksumAlgorithm="SHA256", **retention)
            upload["UploadId"] = made["UploadId"]
            try:
                parts: list[dict[str, Any]] = []
                while part := self._send(source, upload, len(parts) + 1):
                    parts.append(part)
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
            except BaseException:
                with suppress(*REFUSED):
                    self._client.abort_multipart_upload(**upload)
                raise

    def _send(self, source: io.BufferedIOBase, upload: dict[str, str], number: int) -> dict[str, Any]:
        data = source.read(PART_BYTES)
        if not data and number > 1:
            return {}
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        part = {"PartNumber": number, "ChecksumSHA256": checksum}
        # a file is sent in blocks, each with the time-out; bytes would all have to be sent within it
        sent = self._client.upload_part(**upload, **part, Body=io.BytesIO(data))
        return {**part, "ETag": sent["ETag"]}

    def _retention(self) -> dict[str, Any]:
        if not self._lock_days:
            return {}
        until = datetime.now(UTC) + timedelta(days=self._lock_days)
        return {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}

    def delete(self, name: str) -> None:
        """Delete all versions of an object, not only its name."""
        target = self._target(name)
        with self._explained(name):
            for _ in range(MAX_VERSIONS):
                if not (found := self._head(target)):
                    return
                version = {"VersionId": found["VersionId"]} if "VersionId" in found else {}
                try:
                    self._client.delete_object(**target, **version)
                except exceptions.ClientError:
                    if not (until := found.get("ObjectLockRetainUntilDate")):
                        raise
                    line = f"{self._url(name)} is locked until {until:%Y-%m-%d}: delete it then"
                    raise StoreError(line) from None

    def _head(self, target: dict[str, str]) -> Any:
        try:
            return self._client.head_object(**target)
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return None
            raise

    def clean(self, before: datetime) -> None:
        """Abort the uploads of killed runs that began before a time."""
        with self._explained():
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for each in page.get("Uploads", ()):
                    if each["Initiated"] < before:
                        stale = {"Key": each["Key"], "UploadId": each["UploadId"]}
                        self._client.abort_multipart_upload(Bucket=self._bucket, **stale)

    def _target(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name}"}

    def _url(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except REFUSED as error:
            raise StoreError(f"{self._url(name)}: {explain(error)}") from None


class _Download(io.RawIOBase):
    """An object as a stream."""

    def __init__(self, get: Callable[..., Any], response: Any, url: str) -> None:
        self._get, self._url, self._position = get, url, 0
        self._body, self._etag = response["Body"], response["ETag"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        for left in reversed(range(MAX_ATTEMPTS)):
            try:
                count: int = self._body.readinto(buffer)
                break
            except exceptions.BotoCoreError as error:
                if not left:
                    raise StoreError(f"{self._url}: {explain(error)}") from None
                self._body = self._get(self._position, IfMatch=self._etag)["Body"]
        self._position += count
        return count

    def close(self) -> None:
        self._body.close()
        super().close()


def explain(error: Exception) -> str:
    """Return what happened and what to do."""
    if isinstance(error, exceptions.ClientError):
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status >= 500 and code not in ADVICE:
            return f"the server fails or is full ({code}): look into its log, and try again"
        return ADVICE.get(code) or f"refused: {code}: {error.response['Error'].get('Message', '')[:200]}"
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return f"there are no credentials: {CREDENTIALS}"
    if isinstance(error, exceptions.ReadTimeoutError):
        return f"no response within {READ_SECONDS} s in {MAX_ATTEMPTS} attempts: check the server of AWS_ENDPOINT_URL"
    if isinstance(error, exceptions.SSLError):
        return "its certificate is not trusted: set AWS_CA_BUNDLE to the file of its CA"
    if isinstance(error, exceptions.EndpointConnectionError | exceptions.ConnectTimeoutError):
        return "cannot connect: check the network, AWS_ENDPOINT_URL and AWS_REGION"
    if isinstance(error, exceptions.HTTPClientError | exceptions.IncompleteReadError):
        return "the connection was cut: check the network, and try again"
    return f"{type(error).__name__}: check the variables AWS_…"


def open_s3(url: str, lock_days: int = 0) -> Bucket:
    """Create the client; it sends no request yet.

    Args:
        url: `s3://bucket/prefix`.
        lock_days: How long nobody can delete a new object; the bucket needs Object Lock.

    Raises:
        StoreError: A variable AWS_… is wrong.
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        response_checksum_validation="when_required",  # the manifest has the hash of the whole
    )
    try:
        client = boto3.client("s3", config=config)
    except exceptions.BotoCoreError as error:  # names a region, a profile or a file
        raise StoreError(f"AWS: {error}") from None
    except ValueError:
        raise StoreError("AWS_ENDPOINT_URL: use a URL such as https://s3.internal") from None
    return Bucket(client, parts.netloc, f"{prefix}/" if prefix else "", lock_days)
