"""A Kubernetes API server: how it is reached, who we are to it, and what its answers mean.

Why. All adapters of the Kubernetes family need seven calls and the same care with them; a client
library would hide conflicts and bring a hundred thousand lines. So it is plain HTTPS.

How. Inside a cluster the service account's token and certificate are used, and only the address
that the cluster itself names is allowed beyond public ones; outside, a kubeconfig file with a token
(or its file) or a client certificate. Token files are read for every call, because they rotate.
Writes say who writes (`fieldManager=rollbackd`) and are checked strictly, since otherwise a
misspelt field is answered with 200 and dropped.

A failed `test` of a JSON patch and a body that the schema refuses are both 422. So after a 422 the
object is read again: what was guarded has moved (a conflict), or a person must act.

Refused here: kubeconfigs that run a program, turn certificates off or impersonate; names that could
become another path; more than a few megabytes of answer.

References
----------
Kubernetes API concepts: patch, field validation, server-side field ownership.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import os
import re
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from service.act.adapters.base import PlatformFault
from service.act.adapters.calls import Call, Caller, fault_of, read_object
from service.addresses import Network, Reach
from service.http import Http, Reply

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MANAGER = "rollbackd"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
BODY_LIMIT = 8 * 1024 * 1024
_FILE_LIMIT = 1024 * 1024
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_UNFIT = {
    "exec": "runs a program",
    "auth-provider": "needs a program",
    "as": "impersonates",
    "username": "has a password",
}


def check_object_name(field: str, text: str) -> None:
    """Refuse what is no name of a Kubernetes object: empty, a wildcard, part of a path.

    Raises
    ------
    ValueError
        Naming the field.
    """
    if not _NAME.fullmatch(str(text)) or ".." in str(text):
        raise ValueError(f"{field}: found {text!r}, expected the name of one Kubernetes object")


def path_to(group_version: str, namespace: str, plural: str, name: str = "", sub: str = "") -> str:
    """Give the path of an object, a list or a part of one.

    Examples
    --------
    >>> path_to("apps/v1", "shop", "deployments", "fraud", "scale")
    '/apis/apps/v1/namespaces/shop/deployments/fraud/scale'
    >>> path_to("v1", "shop", "services", "fraud")
    '/api/v1/namespaces/shop/services/fraud'
    """
    root = "/apis" if "/" in group_version else "/api"
    parts = ["namespaces", namespace, plural, *filter(None, (name, sub))]
    return f"{root}/{group_version}/" + "/".join(quote(part, safe="") for part in parts)


@dataclass(frozen=True)
class Login:
    """Where the API server is and who we are; nothing of it is ever shown."""

    server: str
    ca: str | None
    """PEM."""
    token: str | None = None
    token_file: Path | None = None
    certificate: tuple[str, str] | None = None
    """Client certificate and key, PEM."""
    allowed: tuple[Network, ...] = ()

    def __repr__(self) -> str:
        """Show nothing."""
        return "Login(***)"

    def tls(self) -> ssl.SSLContext:
        """Make the TLS settings."""
        context = ssl.create_default_context(cadata=self.ca)
        if self.certificate is not None:
            # The standard library reads keys from files only; this one lives for this call.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write("\n".join(self.certificate))
                file.flush()
                context.load_cert_chain(file.name)
        return context

    async def headers(self, fresh: bool = False) -> Mapping[str, str]:
        """Prove who calls; a token file is read each time."""
        token = self.token
        if self.token_file is not None:
            try:
                token = (await asyncio.to_thread(self.token_file.read_text)).strip()
            except (OSError, UnicodeDecodeError):
                text = f"the token file {self.token_file} cannot be read"
                raise PlatformFault("credentials", text) from None
        return {"authorization": f"Bearer {token}"} if token else {}


class Cluster:
    """Sends calls to one API server; reads its settings at the first of them.

    Parameters
    ----------
    kubeconfig : str or None
        Path of the file; None: we run inside the cluster.
    context : str or None
        Of that file; its current one when left out.
    """

    def __init__(
        self, kubeconfig: str | None, context: str | None, reach: Reach, deadline_s: float
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._reach = reach
        self._deadline_s = deadline_s
        self._caller: Caller | None = None

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Read one object.

        Raises
        ------
        PlatformFault
        """
        what = f"GET {path}"
        reply = await self._send(Call("GET", _with(path, query)))
        if reply.status != 200:
            raise fault_of(reply, what)
        return read_object(reply, what)

    async def find(self, path: str, **query: str) -> dict[str, Any] | None:
        """Read one object; None when there is none, or not even its kind."""
        try:
            return await self.get(path, **query)
        except _Missing:
            return None

    async def items(self, path: str, **query: str) -> list[dict[str, Any]] | None:
        """Read a list; None when the cluster does not know the kind."""
        found = await self.find(path, **query)
        return None if found is None else list(found.get("items") or [])

    async def patch(
        self, path: str, body: Any, kind: str = JSON_PATCH, **guard: Any
    ) -> dict[str, Any]:
        """Write.

        Parameters
        ----------
        guard : mapping
            Field of the metadata -> value that the patch relies on, such as `resourceVersion`.

        Raises
        ------
        PlatformFault
            `conflict` when what is guarded has moved.
        """
        what = f"PATCH {path}"
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        headers = {"content-type": kind}
        reply = await self._send(Call("PATCH", _with(path, query), body, headers, writes=True))
        if reply.status == 422 and guard and await self._moved(path, guard):
            raise PlatformFault("conflict", f"{what}: somebody else wrote in between")
        if reply.status not in (200, 201):
            raise fault_of(reply, what, writes=True)
        return read_object(reply, what, writes=True)

    async def _moved(self, path: str, guard: Mapping[str, Any]) -> bool:
        main = path.removesuffix("/status").removesuffix("/scale")
        metadata = (await self.get(main)).get("metadata", {})
        return any(metadata.get(name) != value for name, value in guard.items())

    async def _send(self, call: Call) -> Reply:
        if self._caller is None:
            login = await asyncio.to_thread(read_login, self._kubeconfig, self._context)
            allowed = (*self._reach.allow_private, *login.allowed)
            reach = self._reach._replace(allow_private=allowed)
            http = Http(reach, self._deadline_s, make_tls=login.tls, body_limit=BODY_LIMIT)
            self._caller = Caller(http, login.server, login)
        reply = await self._caller.send(call)
        if reply.status == 404:
            raise _Missing("permanent", str(fault_of(reply, f"{call.method} {call.path}")))
        return reply


class _Missing(PlatformFault):
    """There is no such thing."""


def _with(path: str, query: Mapping[str, str]) -> str:
    pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"{path}?{pairs}" if pairs else path


def read_login(kubeconfig: str | None, context: str | None) -> Login:
    """Read who we are from a kubeconfig file, or from where a cluster puts it. Blocking.

    Raises
    ------
    PlatformFault
        `credentials`, with a sentence that names the file and shows none of it.
    """
    try:
        if kubeconfig is None:
            return _inside()
        return _from_file(Path(kubeconfig), context)
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or "it is no text"
        text = f"the cluster's credentials cannot be read: {reason} ({kubeconfig or ACCOUNT})"
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as fault:
        # A YAML error shows the lines around it, which may hold a token.
        reason = str(fault) if type(fault) is ValueError else "it is no kubeconfig"
        text = f"the kubeconfig {kubeconfig} cannot be used: {reason}"
    raise PlatformFault("credentials", text)


def _inside() -> Login:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get(
        "KUBERNETES_SERVICE_PORT", "443"
    )  # fmt: skip
    if not host:
        raise OSError(None, "not inside a cluster; name a kubeconfig")
    shown = f"[{host}]" if ":" in host else host
    ca = (ACCOUNT / "ca.crt").read_text()
    # The kubelet put this address into our environment; nobody else may be reached by it.
    try:
        allowed: tuple[Network, ...] = (ipaddress.ip_network(host),)
    except ValueError:
        allowed = ()
    server = f"https://{shown}:{port}"
    return Login(server, ca, token_file=ACCOUNT / "token", allowed=allowed)


def _from_file(file: Path, context: str | None) -> Login:
    if file.stat().st_size > _FILE_LIMIT:
        raise ValueError("it is larger than a megabyte")
    read = yaml.safe_load(file.read_text())
    wanted = context or read.get("current-context")
    chosen = _named(read["contexts"], wanted, "context")["context"]
    cluster = _named(read["clusters"], chosen["cluster"], "cluster")["cluster"]
    user = _named(read["users"], chosen["user"], "user")["user"] or {}
    for name, why in _UNFIT.items():
        if user.get(name):
            raise ValueError(f"its user {why} ({name}); give it a token, tokenFile or certificate")
    for name in ("insecure-skip-tls-verify", "proxy-url", "tls-server-name"):
        if cluster.get(name):
            raise ValueError(f"its cluster sets {name}, which is not supported")
    certificate = _pem(user, "client-certificate", file), _pem(user, "client-key", file)
    token_file = user.get("tokenFile")
    return Login(
        server=str(cluster["server"]),
        ca=_pem(cluster, "certificate-authority", file),
        token=user.get("token"),
        token_file=file.parent / token_file if token_file else None,
        certificate=(certificate[0], certificate[1]) if certificate[0] and certificate[1] else None,
    )


def _named(entries: Sequence[Mapping[str, Any]], name: object, what: str) -> Mapping[str, Any]:
    for entry in entries:
        if entry.get("name") == name:
            return entry
    raise ValueError(f"it has no {what} {name!r}")


def _pem(entry: Mapping[str, Any], name: str, file: Path) -> str | None:
    if data := entry.get(f"{name}-data"):
        try:
            return base64.b64decode(data, validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"{name}-data is no base64 of a certificate") from None
    return (file.parent / entry[name]).read_text() if entry.get(name) else None
