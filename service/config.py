"""One settings file, `rollbackd.yaml`, checked whole before anything starts.

Every fault is found at once, a line each with its path. `${VAR}` comes from the environment; any
secret `x` may be given as `x_file`. Only `policies` is required. Plugin fields (adapters, alerts)
are checked against the plugins themselves by `service/app.py`, which knows them.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import Struct, field

from schemas.durations import Duration
from schemas.policies import GuardSpec, Policy, faults_of_policies
from schemas.secrets import Secret
from schemas.topics import TOPICS
from service.faults import faults_of, read_custom, shown


class EngineSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where messages travel."""

    url: str = "local:./rollbackd-data"
    """`local:DIR` (embedded log) or `kafka://host:port,host:port`."""
    prefix: str = "rollbackd."
    """Put before every topic's name."""
    partitions: int | None = None
    """Partitions of each topic; 1 on the local engine and 4 on Kafka when left out."""
    state_dir: str | None = None
    """Where `ingest` keeps pending predictions; beside the local log when left out."""
    security: dict[str, str] = {}
    """Kafka: security_protocol, sasl_mechanism, sasl_plain_username, sasl_plain_password, cafile,
    certfile, keyfile; each may be given as NAME_file."""
    topics: dict[str, str] = {}
    """Real names of topics that are not prefix + name."""
    checkpoint_every: Duration = Duration(1)
    """Longest time between two checkpoints of changed states."""
    session_timeout: Duration = Duration(6)
    """Kafka: a worker that is silent for so long loses its partitions to another."""


class Token(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may use the API."""

    name: str
    """Actor shown in the audit."""
    role: Literal["viewer", "operator", "admin", "producer"]
    """producer sends events; viewer reads; operator holds, approves, orders; admin all."""
    token: Secret


class HttpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP side of every process."""

    listen: str = "127.0.0.1:8420"
    """ADDRESS:PORT for health and metrics everywhere, API and pages where `web` runs."""
    auth: Literal["none", "tokens"] | None = None
    """`none` only on loopback; `tokens` when left out and tokens are given."""
    tokens: list[Token] = []
    public_url: str | None = None
    """Address of the dashboard as people reach it, for links in messages."""
    queue: int = 200_000
    """Events accepted but not yet durable, above which 429 is answered."""


class PrometheusSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The Prometheus that is asked for signals of kind `prometheus`."""

    url: str
    token: Secret | None = None
    allow_http: bool = False
    deadline: Duration = Duration(5)
    """Total time for one query; a late answer is dropped and the signal is unknown."""
    max_age: Duration = Duration(60)
    """A sample older than this is stale."""


class IngestSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How much bad input is borne in silence, and how observations are packed."""

    refused_share: float | None = 0.01
    """Share of refused messages of one source in a minute above which an alert goes out."""
    refused_minimum: int = 100
    """Messages in that minute below which the share says nothing."""
    feature_rows_per_s: int = 50
    """Feature values sampled per model, partition and second, for drift."""
    batch_records: int = 5000
    """Most messages taken from one topic partition at once."""


class SigningSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Commands are signed by `watch` and checked by `act` (Ed25519)."""

    key_file: str | None = None
    """Private key (PEM) of `watch`; made beside the local state on first start when left out."""
    public_key_files: list[str] = []
    """Public keys that `act` trusts; the local key's own when left out."""


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings."""

    policies: list[Policy]
    engine: EngineSettings = field(default_factory=EngineSettings)
    storage: str | None = None
    """`sqlite:///FILE` or `postgresql://…`; SQLite beside the engine's folder when left out."""
    http: HttpSettings = field(default_factory=HttpSettings)
    adapters: dict[str, dict[str, Any]] = {}
    alerts: list[dict[str, Any]] = []
    prometheus: PrometheusSettings | None = None
    ingest: IngestSettings = field(default_factory=IngestSettings)
    signing: SigningSettings = field(default_factory=SigningSettings)
    kill_switch_file: str | None = None
    """While this file exists (or cannot be looked for), no automatic action is taken."""
    epoch: int = 0
    """Raise it with each change of policies on a cluster; a lower one refuses to act."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    digest: str = ""
    """Digest of what the file says, secrets left out; frozen into every breach."""

    @property
    def data_dir(self) -> Path:
        """Where this machine's own state lies."""
        if self.engine.state_dir:
            return Path(self.engine.state_dir)
        if self.engine.url.startswith("local:"):
            return Path(local_path(self.engine.url))
        return Path("./rollbackd-data")

    @property
    def storage_url(self) -> str:
        """The database in force."""
        return self.storage or f"sqlite:///{(self.data_dir / 'incidents.db').absolute()}"


class ConfigFaults(ValueError):
    """Everything that is wrong with the settings; `lines` has one sentence for each fault."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read, complete and check a settings file.

    Raises
    ------
    ConfigFaults
        With all faults.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        raise ConfigFaults([f"{path}: {fault.strerror}; write one with `rollbackd init`"]) from None
    except UnicodeDecodeError:
        raise ConfigFaults(
            [f"{path}: found bytes that are not UTF-8, expected a YAML text"]
        ) from None
    return parse(text, path.parent, environment)


def parse(text: str, folder: Path = Path(), environment: Mapping[str, str] = os.environ) -> Config:
    """Check settings given as text; `folder` is where relative secret files are looked for."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(fault, "problem", None) or "it is nested too deeply"
        raise ConfigFaults([f"the file: {where}found {problem}, expected YAML"]) from None
    lines: list[str] = []
    data = _complete(data, "", folder, environment, lines)
    if isinstance(data, dict) and isinstance(data.get("engine"), str):
        data["engine"] = {"url": data["engine"]}
    if isinstance(data, dict) and "digest" in data:
        lines.append("digest: found an unknown key, it is computed")
    lines += faults_of(Config, data)
    lines += [line for line in _faults_beyond_types(_as_far_as_readable(data)) if line not in lines]
    if lines:
        raise ConfigFaults(lines)
    config = msgspec.convert(data, Config, dec_hook=read_custom)
    return msgspec.structs.replace(config, digest=_digest(data))


def _as_far_as_readable(data: Any) -> Config:
    """The settings with what cannot be read left out, so that all other faults show as well."""
    sections: dict[str, Any] = {"policies": [_UNREADABLE_POLICY]}
    if isinstance(data, dict):
        for item in msgspec.structs.fields(Config):
            if item.name in data and item.name != "policies":
                with contextlib.suppress(msgspec.ValidationError, ValueError):
                    sections[item.name] = msgspec.convert(
                        data[item.name], item.type, dec_hook=read_custom
                    )
        if isinstance(data.get("policies"), list):
            sections["policies"] = [_readable_policy(item) for item in data["policies"]]
    return Config(**sections)


def _readable_policy(data: Any) -> Policy:
    if not isinstance(data, dict):
        return _UNREADABLE_POLICY
    kept: dict[str, Any] = {}
    for item in msgspec.structs.fields(Policy):
        if item.name == "guards" and isinstance(data.get("guards"), list):
            kept["guards"] = [_readable_guard(guard) for guard in data["guards"]]
        elif item.name in data:
            with contextlib.suppress(msgspec.ValidationError, ValueError):
                kept[item.name] = msgspec.convert(data[item.name], item.type, dec_hook=read_custom)
    return Policy(**({"model": "*"} | kept))


def _readable_guard(data: Any) -> GuardSpec:
    try:
        return msgspec.convert(data, GuardSpec, dec_hook=read_custom)
    except (msgspec.ValidationError, ValueError):
        return _UNREADABLE_GUARD


_UNREADABLE_POLICY = Policy(model="*")
_UNREADABLE_GUARD = GuardSpec(signal="error_rate", max=0.5)


def local_path(url: str) -> str:
    """The folder of a `local:` address, given with or without slashes before it."""
    rest = url.removeprefix("local:")
    return "/" + rest.lstrip("/") if rest.startswith("///") else rest.removeprefix("//")


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _complete(
    value: Any, path: str, folder: Path, environment: Mapping[str, str], lines: list[str]
) -> Any:
    """Put in the environment's values and the contents of `*_file` secrets."""
    if isinstance(value, str):
        for name in _VARIABLE.findall(value):
            if name not in environment:
                lines.append(
                    f"{path}: found ${{{name}}}, expected that variable in the environment"
                )
        return _VARIABLE.sub(lambda found: environment.get(found.group(1), ""), value)
    if isinstance(value, list):
        return [
            _complete(item, f"{path}[{i}]", folder, environment, lines)
            for i, item in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    whole = {
        key: _complete(item, f"{path}.{key}" if path else str(key), folder, environment, lines)
        for key, item in value.items()
    }
    for key in [k for k in whole if isinstance(k, str) and k.endswith("_file")]:
        if key in ("kill_switch_file", "key_file") or not isinstance(whole[key], str):
            continue
        name = key.removesuffix("_file")
        at = f"{path}.{key}" if path else key
        if name in whole:
            lines.append(f"{at}: found both {name} and {key}, expected one of them")
        try:
            whole[name] = (folder / whole.pop(key)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as fault:
            reason = getattr(fault, "strerror", None) or "it is not a text"
            lines.append(f"{at}: cannot be read ({reason}), expected a file that holds the secret")
            whole[name] = ""
    return whole


def _faults_beyond_types(config: Config) -> Iterator[str]:
    yield from faults_of_policies(config.policies, set(config.adapters))
    if not config.policies:
        yield "policies: found an empty list, expected at least one policy"
    yield from _faults_of_engine(config.engine)
    yield from _faults_of_http(config.http)
    if config.storage is not None and not re.match(
        r"(sqlite:///|postgresql(\+psycopg)?://)", config.storage
    ):
        yield "storage: found an address of another kind, expected sqlite:///FILE or postgresql://…"
    needs = any(g.signal == "prometheus" for p in config.policies for g in p.guards)
    if needs and config.prometheus is None:
        yield "prometheus: found nothing, expected {url: …} because a guard has signal prometheus"
    if config.prometheus is not None:
        yield from fault_of_url(
            config.prometheus.url, "prometheus.url", config.prometheus.allow_http
        )
    for name, adapter in config.adapters.items():
        if not isinstance(adapter.get("kind"), str):
            yield f"adapters.{name}.kind: found nothing, expected the kind of adapter"
        if "url" in adapter:
            yield from fault_of_url(
                adapter["url"], f"adapters.{name}.url", bool(adapter.get("allow_http"))
            )
    for i, alert in enumerate(config.alerts):
        if not isinstance(alert.get("kind"), str):
            yield f"alerts[{i}].kind: found nothing, expected the kind of notifier"
        if "url" in alert:
            yield from fault_of_url(alert["url"], f"alerts[{i}].url", bool(alert.get("allow_http")))
    share = config.ingest.refused_share
    if share is not None and not 0 <= share <= 1:
        yield f"ingest.refused_share: found {share:g}, expected a share in [0, 1] or null"


def _faults_of_engine(engine: EngineSettings) -> Iterator[str]:
    if not re.match(r"(local:.|kafka://[^/\s]+:\d+)", engine.url):
        yield (
            f"engine.url: found {shown(engine.url)}, "
            "expected local:DIR or kafka://host:port,host:port"
        )
    if engine.partitions is not None and not 1 <= engine.partitions <= 1024:
        yield f"engine.partitions: found {engine.partitions}, expected 1 to 1024"
    for name in engine.topics:
        if name not in TOPICS:
            known = ", ".join(TOPICS)
            yield f"engine.topics.{name}: found an unknown topic, expected one of {known}"


def _faults_of_http(http: HttpSettings) -> Iterator[str]:
    host, _, port = http.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        yield f"http.listen: found {shown(http.listen)}, expected ADDRESS:PORT"
        return
    if not is_loopback(host):
        if http.auth == "none":
            yield "http.auth: found none on an address beyond loopback, expected tokens"
        elif not http.tokens:
            yield "http.tokens: found none on an address beyond loopback, expected at least one"
    elif http.auth == "tokens" and not http.tokens:
        yield "http.tokens: found none, expected at least one because http.auth is tokens"
    for i, token in enumerate(http.tokens):
        if len(token.token.reveal()) < 16:
            yield f"http.tokens[{i}].token: found a short one, expected at least 16 characters"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine only."""
    name = host.strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def fault_of_url(url: Any, path: str, allow_http: bool) -> Iterator[str]:
    """Yield what is wrong with an outgoing address; the address itself is never shown."""
    try:
        parts = urlsplit(url)
        host, scheme = parts.hostname, parts.scheme
    except (ValueError, AttributeError, TypeError):
        host, scheme = None, ""
    if not host or scheme not in ("http", "https"):
        yield f"{path}: found no address, expected https://host/…"
    elif scheme == "http" and not is_loopback(host) and not allow_http:
        yield f"{path}: found http beyond loopback, expected https (or allow_http: true)"


def _digest(data: Any) -> str:
    """Digest of the settings as given; secrets count by their own digest, not in clear."""
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
