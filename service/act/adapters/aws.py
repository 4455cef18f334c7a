"""Calls to one AWS service of the JSON protocol, signed, through the project's own HTTP.

Why. The SDK's client tries again, follows its own clock and hides conflicts. So of `botocore` only
four things are used: where it finds credentials, its Signature Version 4, its account of which
parameters an operation takes, and the names of errors. The bytes go through `service/http.py`.

How. Loading credentials may reach the network (a role's token, an instance's metadata) by
botocore's own means and therefore runs in a thread; nothing else of it touches a socket. An expired
token is fetched once more.

Refused here: trying again; parameters that the service model does not know.

References
----------
AWS General Reference, "Signature Version 4 signing process"; AWS JSON 1.1 protocol.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.secrets import Secret
from service.act.adapters.base import FaultKind, PlatformFault
from service.act.adapters.calls import exchange, fault_of, read_object
from service.crash import crash_point
from service.http import Http, Reply
from service.telemetry import clean

REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_THROTTLED = frozenset({"ThrottlingException", "Throttling", "RequestLimitExceeded"})
_EXPIRED = frozenset({"ExpiredTokenException", "ExpiredToken", "RequestExpired"})
_AT_WORK = re.compile(r"in[- ]progress|\bupdating\b", re.IGNORECASE)
# What is no client's error is passing; these codes are all that botocore itself tries again.
_PASSING = _THROTTLED | {"ServiceUnavailable", "InternalFailure", "InternalServerException"}


class AwsService:
    """One service in one region.

    Parameters
    ----------
    service : str
        As botocore names it.
    keys : tuple of str and Secret, optional
        Access key id and secret; without them botocore looks where it always looks.
    """

    def __init__(
        self,
        http: Http,
        service: str,
        region: str,
        url: str,
        keys: tuple[str, Secret] | None = None,
    ) -> None:
        self._http = http
        self._service = service
        self._region = region
        self._url = url
        self._keys = keys
        self._session: Any = None
        self._model: Any = None

    async def call(
        self, operation: str, params: Mapping[str, Any], writes: bool = False
    ) -> dict[str, Any]:
        """Call an operation; give its answer.

        Raises
        ------
        PlatformFault
        """
        for fresh in (False, True):
            headers, body = await asyncio.to_thread(self._signed, operation, dict(params), fresh)
            on_sent = (lambda: crash_point("K9")) if writes else None
            reply = await exchange(
                lambda h=headers, b=body, s=on_sent: self._http.request(  # type: ignore[misc]
                    "POST", self._url, b, h, s
                ),
                writes,
            )
            if reply.status == 200:
                return read_object(reply, operation, writes)
            if error_of(reply)[0] not in _EXPIRED:
                break
        raise aws_fault(reply, operation, writes)

    def _signed(
        self, operation: str, params: dict[str, Any], fresh: bool
    ) -> tuple[dict[str, str], bytes]:
        """Check parameters against the service model and sign. Blocking; may fetch a token."""
        try:
            import botocore.auth
            import botocore.awsrequest
            import botocore.exceptions
            import botocore.session
            import botocore.validate
        except ImportError:
            text = "botocore is not installed: pip install 'rollbackd[aws]'"
            raise PlatformFault("permanent", text) from None
        if self._session is None or fresh:
            self._session = botocore.session.Session()
            if self._keys is not None:
                self._session.set_credentials(self._keys[0], self._keys[1].reveal())
        try:
            if self._model is None:
                self._model = self._session.get_service_model(self._service)
            shape = self._model.operation_model(operation).input_shape
            botocore.validate.validate_parameters(params, shape)
            credentials = self._session.get_credentials()
            if credentials is None:
                text = "no AWS credentials: give this process a role, or set access_key_id"
                raise PlatformFault("credentials", text)
            frozen = credentials.get_frozen_credentials()
        except botocore.exceptions.ParamValidationError as fault:
            raise PlatformFault("permanent", f"{operation}: {clean(str(fault))[:300]}") from None
        except botocore.exceptions.BotoCoreError as fault:
            text = f"AWS credentials cannot be loaded ({type(fault).__name__})"
            raise PlatformFault("transient", text) from None
        body = msgspec.json.encode(params)
        meta = self._model.metadata
        request = botocore.awsrequest.AWSRequest(
            "POST",
            self._url,
            {
                "Content-Type": f"application/x-amz-json-{meta['jsonVersion']}",
                "X-Amz-Target": f"{meta['targetPrefix']}.{operation}",
            },
            body,
        )
        botocore.auth.SigV4Auth(frozen, self._service, self._region).add_auth(request)
        return {str(name): str(value) for name, value in request.headers.items()}, body


def error_of(reply: Reply) -> tuple[str, str]:
    """Give the code and the words of an error.

    Examples
    --------
    >>> error_of(Reply(400, {}, b'{"__type": "a#ThrottlingException"}', None))
    ('ThrottlingException', '')
    """
    answer = reply.json()
    said = answer if isinstance(answer, dict) else {}
    code = str(said.get("__type") or reply.headers.get("x-amzn-errortype", ""))
    words = str(said.get("message") or said.get("Message") or "")
    return code.split("#")[-1].split(":")[0], str(clean(words))[:300]


def aws_fault(reply: Reply, operation: str, writes: bool) -> PlatformFault:
    """Say what an error means: AWS answers most of them with status 400 and a code."""
    code, words = error_of(reply)
    kind: FaultKind
    if code in _PASSING:
        kind = "transient"
    elif code in _EXPIRED or code in ("UnrecognizedClientException", "InvalidSignatureException"):
        kind = "credentials"
    elif code == "ResourceInUse" or (code == "ValidationException" and _AT_WORK.search(words)):
        kind = "busy"
    elif code and reply.status < 500:
        kind = "permanent"
    else:
        return fault_of(reply, operation, writes)
    text = f"{operation} was answered {code}" + (f": {words}" if words else "")
    return PlatformFault(kind, text, reply.retry_after_s)
