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
from msgspec import Struct, field

from schemas.durations import Duration
from schemas.policies import Freeze, GuardSpec, Policy, faults_of_policies
from schemas.secrets import Secret
from schemas.times import to_ms
from schemas.topics import TOPICS
from service.faults import faults_of, names_secret, read_custom, shown
from service.telemetry import redact
from service.text import UnreadableYaml, complete, read_yaml


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

    url: str = "http://127.0.0.1:9090"
    token: Secret | None = None
    """Sent as bearer token."""
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
    """Most messages taken from one topic partition at once, on the local engine."""


class FleetSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What stops automatic action over all models together."""

    rollbacks: int = 10
    """Automatic rollbacks of all models; more are refused, and a person is called."""
    per: Duration = Duration(3600)
    """Within so much wall time."""
    together_share: float = 0.2
    """When this part of all watched models breaches within `together_within`, a cause that they
    share is suspected, and all automatic action is held until a person releases it."""
    together_models: int = 3
    """Fewest models for that."""
    together_within: Duration = Duration(120)
    """Within so much wall time."""


class SigningSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Commands are signed by `watch` and checked by `act` (Ed25519)."""

    key_file: str | None = None
    """Private key (PEM) of `watch`; made beside the local state on first start when left out."""
    public_key_files: list[str] = []
    """Public keys that `act` trusts; the local key's own when left out."""


class AuditSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the incident log is vouched for from outside its database."""

    anchor_every: Duration = Duration(300)
    """Time between two signed anchors of the log, while it grows."""
    anchor_file: str | None = None
    """Anchors are appended here too; best on storage that cannot be written twice."""
    key_file: str | None = None
    """Private key (PEM) of `record`; made beside the local state on first start when left out."""
    public_key_files: list[str] = []
    """Public keys that `incidents verify` trusts; the local key's own when left out."""


class HeartbeatSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A dead man's switch: an address outside that raises the alarm when nothing comes any more."""

    url: Secret
    """POSTed to by `alert` while events are taken in, judged and told, and only then."""
    every: Duration = Duration(60)
    """Time between two beats; let the receiver allow for three."""
    allow_http: bool = False
    allow_private: list[str] = []
    """Private networks that the address may lie in, such as `10.1.0.0/16`."""


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings."""

    policies: list[Policy]
    engine: EngineSettings = field(default_factory=EngineSettings)
    storage: str | None = None
    """`sqlite:///FILE` or `postgresql://…`; SQLite beside the engine's folder when left out."""
    http: HttpSettings = field(default_factory=HttpSettings)
    adapters: dict[str, dict[str, Any]] = {}
    alerts: list[dict[str, Any]] = []
    """Who is told: `kind` and the notifier's own settings. Besides, `models` (names or globs) and
    `severity` (`problem`, `question`, `good`, `person`) choose what an endpoint hears, and `quiet`
    (`from`, `to`, `zone`) the hours in which only questions and calls for a person reach it."""
    heartbeat: HeartbeatSettings | None = None
    """Without it nobody outside learns that this service stands still."""
    prometheus: PrometheusSettings | None = None
    """Asked when a guard has the signal `prometheus`; this machine's own one when left out."""
    ingest: IngestSettings = field(default_factory=IngestSettings)
    signing: SigningSettings = field(default_factory=SigningSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    freeze: list[Freeze] = []
    """Times in which nothing is promoted; rollbacks go on."""
    kill_switch_file: str | None = None
    """While this file exists (or cannot be looked for), no automatic action is taken."""
    epoch: int = 0
    """Number of this file's revision on a cluster. Nothing acts on it yet."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    digest: str = ""
    """Digest of policies and adapters in force, secrets left out; frozen into every breach."""

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
    lines: list[str] = []
    try:
        data = complete(read_yaml(text), "", folder, environment, lines)
    except UnreadableYaml as fault:
        raise ConfigFaults([str(fault)]) from None
    if isinstance(data, dict) and isinstance(data.get("engine"), str):
        data["engine"] = {"url": data["engine"]}
    if isinstance(data, dict) and "digest" in data:
        lines.append("digest: found an unknown key, it is computed")
    lines += faults_of(Config, data)
    lines += [line for line in _faults_beyond_types(_as_far_as_readable(data)) if line not in lines]
    if lines:
        raise ConfigFaults(lines)
    config = msgspec.convert(data, Config, dec_hook=read_custom)
    if config.prometheus is None and _asks_prometheus(config):
        config = msgspec.structs.replace(config, prometheus=PrometheusSettings())
    return msgspec.structs.replace(config, digest=_digest(config))


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
            kept["guards"] = [_readable_guard(*each) for each in enumerate(data["guards"])]
        elif item.name in data:
            with contextlib.suppress(msgspec.ValidationError, ValueError):
                kept[item.name] = msgspec.convert(data[item.name], item.type, dec_hook=read_custom)
    return Policy(**({"model": "*"} | kept))


def _readable_guard(index: int, data: Any) -> GuardSpec:
    try:
        return msgspec.convert(data, GuardSpec, dec_hook=read_custom)
    except (msgspec.ValidationError, ValueError):
        # Its name differs from all others, or it would be counted as a second one.
        return GuardSpec(signal="error_rate", max=0.5, name=f"unreadable {index}")


_UNREADABLE_POLICY = Policy(model="*")


def local_path(url: str) -> str:
    """The folder of a `local:` address, given with or without slashes before it."""
    rest = url.removeprefix("local:")
    return "/" + rest.lstrip("/") if rest.startswith("///") else rest.removeprefix("//")


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
    if config.prometheus is not None:
        yield from fault_of_url(
            config.prometheus.url, "prometheus.url", config.prometheus.allow_http
        )
        for name in ("deadline", "max_age"):
            if getattr(config.prometheus, name) <= 0:
                yield f"prometheus.{name}: found 0 s, expected a duration above 0"
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
    if config.heartbeat is not None:
        yield from _faults_of_heartbeat(config.heartbeat)
    yield from _faults_of_ingest(config.ingest)
    yield from _faults_of_fleet(config.fleet)
    for i, freeze in enumerate(config.freeze):
        if to_ms(freeze.ends) <= to_ms(freeze.begins):
            yield f"freeze[{i}].ends: found a time not after begins, expected a later one"
    if config.audit.anchor_every <= 0:
        yield "audit.anchor_every: found 0 s, expected a duration above 0"
    if config.epoch < 0:
        yield f"epoch: found {config.epoch}, expected 0 or more"


def _asks_prometheus(config: Config) -> bool:
    return any(g.signal == "prometheus" for p in config.policies for g in p.guards)


def _faults_of_heartbeat(heartbeat: HeartbeatSettings) -> Iterator[str]:
    yield from fault_of_url(heartbeat.url.reveal(), "heartbeat.url", heartbeat.allow_http)
    if heartbeat.every < 1:
        yield f"heartbeat.every: found {heartbeat.every:g} s, expected at least 1 s"
    for text in heartbeat.allow_private:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            yield (
                f"heartbeat.allow_private: found {shown(text)}, "
                "expected an address or a network such as 10.1.0.0/16"
            )


def _faults_of_fleet(fleet: FleetSettings) -> Iterator[str]:
    for name, least in (("rollbacks", 1), ("together_models", 2)):
        if (found := getattr(fleet, name)) < least:
            yield f"fleet.{name}: found {found}, expected {least} or more"
    if not 0 < fleet.together_share <= 1:
        yield f"fleet.together_share: found {fleet.together_share:g}, expected a share in (0, 1]"
    for name in ("per", "together_within"):
        if getattr(fleet, name) <= 0:
            yield f"fleet.{name}: found 0 s, expected a duration above 0"


def _faults_of_ingest(ingest: IngestSettings) -> Iterator[str]:
    share = ingest.refused_share
    if share is not None and not 0 <= share <= 1:
        yield f"ingest.refused_share: found {share:g}, expected a share in [0, 1] or null"
    for name, least in (("refused_minimum", 1), ("feature_rows_per_s", 0), ("batch_records", 1)):
        if (found := getattr(ingest, name)) < least:
            yield f"ingest.{name}: found {found}, expected {least} or more"


def _faults_of_engine(engine: EngineSettings) -> Iterator[str]:
    if not re.match(r"(local:.|kafka://[^/\s]+:\d+)", engine.url):
        yield (
            f"engine.url: found {shown(redact(engine.url))}, "
            "expected local:DIR or kafka://host:port,host:port"
        )
    if engine.partitions is not None and not 1 <= engine.partitions <= 1024:
        yield f"engine.partitions: found {engine.partitions}, expected 1 to 1024"
    for name in ("checkpoint_every", "session_timeout"):
        if getattr(engine, name) <= 0:
            yield f"engine.{name}: found 0 s, expected a duration above 0"
    for name in engine.topics:
        if name not in TOPICS:
            known = ", ".join(TOPICS)
            yield f"engine.topics.{name}: found an unknown topic, expected one of {known}"


def _faults_of_http(http: HttpSettings) -> Iterator[str]:
    host, _, port = http.listen.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65_535:
        yield f"http.listen: found {shown(http.listen)}, expected ADDRESS:PORT"
        return
    if not is_loopback(host):
        if http.auth == "none":
            yield "http.auth: found none on an address beyond loopback, expected tokens"
        elif not http.tokens:
            yield "http.tokens: found none on an address beyond loopback, expected at least one"
    elif http.auth == "tokens" and not http.tokens:
        yield "http.tokens: found none, expected at least one because http.auth is tokens"
    if http.queue < 1:
        yield f"http.queue: found {http.queue}, expected 1 or more"
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
        _ = parts.port  # raises on a port that is none
    except (ValueError, AttributeError, TypeError):
        host, scheme = None, ""
    if not host or scheme not in ("http", "https"):
        yield f"{path}: found no address, expected https://host/…"
    elif scheme == "http" and not is_loopback(host) and not allow_http:
        yield f"{path}: found http beyond loopback, expected https (or allow_http: true)"


def _digest(config: Config) -> str:
    """Digest of what decides and of who carries it out; the same where other secrets are seen."""
    policies = msgspec.to_builtins(config.policies, enc_hook=str)
    text = json.dumps(
        {"policies": policies, "adapters": _without_secrets(config.adapters)},
        sort_keys=True, default=str,
    )  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            str(key): "***" if names_secret(str(key)) else _without_secrets(item)
            for key, item in value.items()
        }
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value
