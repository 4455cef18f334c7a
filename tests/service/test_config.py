"""`rollbackd.yaml`: all faults at once, no secret in any of them, nothing else ever raised."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.durations import Duration
from schemas.secrets import Secret
from service.config import (
    Config,
    ConfigFaults,
    fault_of_url,
    is_loopback,
    load,
    local_path,
    parse,
)

CONTRACT = """
engine: local:///var/lib/rollbackd        # embedded; or kafka://broker1:9092,broker2:9092
storage: sqlite:////var/lib/rollbackd/incidents.db   # or postgresql://…
http: {listen: 127.0.0.1:8420}
adapters:
  prod: {kind: webhook, url: https://deployer.example/rollback, secret_file: hook}
alerts:
  - {kind: slack, url_file: slack}
policies:
  - model: credit-risk                    # exact or glob; the first that matches holds
    adapter: prod
    mode: observe                         # observe (default) | propose | enforce
    positive: 1                           # label of the positive class, for binary tasks
    horizon: 7d                           # how long an outcome may take
    labels: matured                       # matured | optimistic | conditional
    alpha: 0.01                           # chance of ever rolling back a healthy version
    guards:
      - {signal: error_rate, max: 0.05}
      - {signal: latency_ms, quantile: 0.95, max: 300}
      - {signal: accuracy, min: 0.90}
      - {signal: false_positive_rate, max_increase: 0.15}
      - {signal: score, detector: adwin, action: alert}
      - {signal: prometheus, query: 'histogram_quantile(…)', max: 0.3, action: alert}
    promote: {steps: [0.05, 0.25, 0.5, 1.0], margin: 0.25, bake: 24h}
    cooldown: 6h
"""
"""The example of the public contract; only its secrets lie beside the file."""

HIDDEN = "hunter2-hunter2-hunter2"


def a_config(extra: str = "", policy: str = "{model: m}", **environment: str) -> Config:
    """A small settings file; `extra` is more of its text."""
    return parse(f"policies: [{policy}]\n{extra}", Path("/nonexistent"), environment)


def faults(extra: str = "", policy: str = "{model: m}", **environment: str) -> list[str]:
    with pytest.raises(ConfigFaults) as found:
        a_config(extra, policy, **environment)
    return found.value.lines


def test_the_example_of_the_contract_is_accepted(tmp_path: Path) -> None:
    """If this breaks, the first file that anyone writes is refused."""
    (tmp_path / "rollbackd.yaml").write_text(CONTRACT)
    (tmp_path / "hook").write_text(f"{HIDDEN}\n")
    (tmp_path / "slack").write_text("https://hooks.example/T/B/x")

    config = load(tmp_path / "rollbackd.yaml", {})

    (policy,) = config.policies
    assert ("credit-risk", Duration(604_800), 6) == (
        policy.model, policy.horizon, len(policy.guards),
    )  # fmt: skip
    assert HIDDEN == config.adapters["prod"]["secret"]
    assert "https://hooks.example/T/B/x" == config.alerts[0]["url"]
    assert (Path("/var/lib/rollbackd"), "sqlite:////var/lib/rollbackd/incidents.db") == (
        config.data_dir, config.storage_url,
    )  # fmt: skip
    assert config.prometheus is not None
    assert "http://127.0.0.1:9090" == config.prometheus.url


def test_only_policies_are_required_and_the_rest_stays_on_this_machine() -> None:
    """If this breaks, a first try needs a broker, or listens to the whole network."""
    config = a_config()

    assert "local:./rollbackd-data" == config.engine.url
    assert config.storage_url.endswith("/rollbackd-data/incidents.db")
    assert "127.0.0.1:8420" == config.http.listen
    assert ({}, [], None) == (config.adapters, config.alerts, config.prometheus)
    assert ("observe", None) == (config.policies[0].mode, config.policies[0].adapter)


def test_an_engine_is_an_address_or_a_mapping() -> None:
    """If this breaks, options of Kafka cannot be set."""
    short = a_config("engine: kafka://a:9092,b:9092")
    whole = a_config(
        "engine: {url: 'kafka://a:9092,b:9092', prefix: x., partitions: 8, state_dir: /s,\n"
        "  security: {sasl_plain_password: '${PASS}'}, topics: {predictions: scores}}",
        PASS=HIDDEN,
    )

    assert "kafka://a:9092,b:9092" == short.engine.url == whole.engine.url
    assert ("x.", 8, {"sasl_plain_password": HIDDEN}) == (
        whole.engine.prefix, whole.engine.partitions, whole.engine.security,
    )  # fmt: skip
    assert Path("/s") == whole.data_dir


def test_all_faults_are_found_at_once_each_with_its_path() -> None:
    """If this breaks, a person mends one fault per start."""
    found = faults(
        """
engine: {url: redis://x, partitions: 0, topics: {guesses: x}}
storage: mysql://x
http: {listen: 0.0.0.0:80000, quue: 1}
adapters: {prod: {url: http://far.example/x}, 1: {kind: webhook}}
alerts: [{kind: slack, url: ftp://x}, {}]
prometheus: {url: http://far.example, deadline: 0s}
ingest: {refused_share: 2, batch_records: 0}
log_level: loud
epoch: -1
digest: abc
""",
        "{model: m, alpha: 2, adapter: pord, guards: [{signal: errors}, {signal: error, mx: 1}]}",
    )

    assert [
        "digest: found an unknown key, it is computed",
        "policies[0].guards[1].mx: found an unknown key, expected max?",
        "http.quue: found an unknown key, expected queue?",
        "adapters.1: found 1 as a key, expected a text",
        "log_level: found 'loud', expected one of debug, info, warning, error",
        "policies[0].adapter: found 'pord', expected one of adapters (none is configured)",
        "policies[0].alpha: found 2, expected a chance above 0 and below 0.5",
    ] == found[:7]
    assert [
        "policies[0].guards[0].signal", "engine.url", "engine.partitions", "engine.topics.guesses",
        "storage", "prometheus.url", "prometheus.deadline", "alerts[0].url", "alerts[1].kind",
        "ingest.refused_share", "ingest.batch_records", "epoch",
    ] == [line.split(":")[0] for line in found[7:]]  # fmt: skip
    assert all("expected" in line or line.startswith("digest") for line in found)


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("http: {listen: '8420'}", "http.listen: found '8420'"),
        ("http: {listen: '127.0.0.1:²'}", "http.listen: found"),
        ("http: {listen: '0.0.0.0:80'}", "http.tokens: found none on an address beyond loopback"),
        ("http: {listen: '0.0.0.0:80', auth: none}", "http.auth: found none on an address beyond"),
        ("http: {auth: tokens}", "http.tokens: found none, expected at least one"),
        ("http: {queue: 0}", "http.queue: found 0"),
        ("http: {tokens: [{name: a, role: admin, token: short}]}", "http.tokens[0].token: found a"),
        ("engine: {checkpoint_every: 0}", "engine.checkpoint_every: found 0 s"),
        ("engine: 'kafka://broker'", "engine.url: found 'kafka://broker'"),
        ("engine: 'local:'", "engine.url: found 'local:'"),
        ("engine: 5", "engine: found a number"),
        ("adapters: {p: {}}", "adapters.p.kind: found nothing"),
        ("adapters: {p: 5}", "adapters.p: found a number, expected a mapping"),
        ("kill_switch_file: '${NOPE}'", "kill_switch_file: found ${NOPE}, expected that variable"),
        ("http: {public_url: '${A}${B}'}", "http.public_url: found ${B}, expected that variable"),
        ("storage_file: nofile", "storage_file: cannot be read (No such file or directory)"),
        ("storage_file: ''", "storage_file: cannot be read"),
        ("storage_file: \"a\\0b\"", "storage_file: cannot be read"),
        ("storage: sqlite:///x\nstorage_file: nofile", "storage_file: found both storage and"),
        ("x: 1\nx: 2", "the file: line 3: found the key 'x' twice"),
        ("a: &a [*a]", "the file: found over 100000 values"),
        ("a: " + "[" * 3000, "the file: found lists or mappings nested too deeply"),
        ("a: [", "the file: line 2: "),
        ("a: !!python/object:os.system 1", "the file: line 2: could not determine a constructor"),
        ("a: 2026-02-31", "the file: day is out of range"),
        ("a: \0", "the file: found characters that YAML refuses"),
        ("? [1]\n: 2", "the file: line 2: found unhashable key"),
        ("- 1", "the file: line 2: "),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_place(extra: str, line: str) -> None:
    """If this breaks, a wrong file starts, or its reader gets a stack trace."""
    assert any(found.startswith(line) for found in faults(extra, A="1"))


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    """If this breaks, a first start ends in a riddle."""
    (tmp_path / "latin.yaml").write_bytes(b"policies: \xff")

    with pytest.raises(ConfigFaults, match=r"No such file.*rollbackd init"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigFaults, match="bytes that are not UTF-8"):
        load(tmp_path / "latin.yaml")


def test_a_file_that_is_wanted_as_a_file_stays_one() -> None:
    """If this breaks, a certificate's text is taken for its path."""
    config = a_config(
        "kill_switch_file: /stop\nsigning: {key_file: /key}\n"
        "adapters: {p: {kind: webhook, ca_file: /ca.pem}}"
    )

    assert ("/stop", "/key") == (config.kill_switch_file, config.signing.key_file)
    assert "/ca.pem" == config.adapters["p"]["ca_file"]


def test_secrets_come_from_environment_or_file(tmp_path: Path) -> None:
    """If this breaks, secrets stand in the settings file."""
    (tmp_path / "token").write_text(f"  {HIDDEN}\n")
    text = "policies: [{model: m}]\nhttp: {tokens: [{name: a, role: admin, %s}]}"

    by_file = parse(text % "token_file: token", tmp_path, {})
    by_name = parse(text % "token: 'x${T}${T}'", tmp_path, {"T": HIDDEN})

    assert Secret(HIDDEN) == by_file.http.tokens[0].token
    assert Secret(f"x{HIDDEN}{HIDDEN}") == by_name.http.tokens[0].token


@pytest.mark.parametrize(
    "extra",
    [
        "http: {tokens: [hunter2]}", "http: {tokens: hunter2}",
        "http: {tokens: [{name: a, role: admin, token: hunter2}]}",
        "http: {tokens: [{name: a, role: admin, token: [hunter2]}]}",
        "prometheus: {url: 'http://far.example/hunter2'}", "prometheus: hunter2",
        "prometheus: {url: 'hunter2'}", "prometheus: {url: 'https://hunter2:x@[y'}",
        "engine: {security: hunter2}", "engine: {security: {sasl_plain_password: [hunter2]}}",
        "engine: 'redis://user:hunter2@h:1'", "storage: 'mysql://user:hunter2@h/x'",
        "storage: {hunter2: 1}", "alerts: [{kind: slack, url: 'http://far.example/hunter2'}]",
        "alerts: [hunter2]", "adapters: {p: {kind: webhook, url: 'hunter2'}}",
        "adapters: {p: hunter2}",
    ],
)  # fmt: skip
def test_no_secret_is_in_any_fault(extra: str) -> None:
    """If this breaks, a failed start writes a token into a log."""
    assert "hunter2" not in "\n".join(faults(extra))


POLICY = "{model: m, guards: [{signal: error_rate, max: 0.05}]}"


def test_two_processes_with_other_secrets_agree_on_the_digest() -> None:
    """If this breaks, `watch` and `act` seem to run different policies for ever."""
    extra = (
        "adapters: {p: {kind: webhook, url: 'https://%s.example', retries: 3, auth: {token: %s}}}"
    )
    digests = {
        a_config(extra % (host, token) + more, POLICY).digest
        for host in ("a", "b")
        for token in ("x", "y")
        for more in ("", "\nlog_level: debug", "\nengine: kafka://b:9092", "\n# a comment")
    }

    assert 1 == len(digests)
    assert 16 == len(digests.pop())


@pytest.mark.parametrize(
    "other",
    [
        ("", "{model: n, guards: [{signal: error_rate, max: 0.05}]}"),
        ("", "{model: m, guards: [{signal: error_rate, max: 0.051}]}"),
        ("", "{model: m, alpha: 0.02, guards: [{signal: error_rate, max: 0.05}]}"),
        ("", "{model: m, horizon: 8d, guards: [{signal: error_rate, max: 0.05}]}"),
        ("adapters: {p: {kind: webhook}}", POLICY),
        ("adapters: {p: {kind: webhook, routes: {1: a, b: c}}}", POLICY),
    ],
)
def test_other_policies_or_adapters_have_another_digest(other: tuple[str, str]) -> None:
    """If this breaks, an incident does not show under which policy it was decided."""
    assert a_config("", POLICY).digest != a_config(*other).digest


def test_the_same_meaning_has_the_same_digest() -> None:
    """If this breaks, writing a default out looks like a change of policy."""
    written = "{model: m, alpha: 0.01, horizon: 168h, guards: [{max: 0.05, signal: error_rate}]}"

    assert a_config("", POLICY).digest == a_config("", written).digest


@pytest.mark.parametrize(
    ("url", "allowed", "words"),
    [
        ("https://a.example/x", False, None), ("http://127.0.0.1:9/x", False, None),
        ("http://[::1]/x", False, None), ("http://localhost", False, None),
        ("http://a.example", True, None), ("http://a.example", False, "http beyond loopback"),
        ("http://127.0.0.1.a.example", False, "http beyond"), ("http://10.0.0.1", False, "beyond"),
        ("ftp://a.example", True, "no address"), ("//a.example", True, "no address"),
        ("https://", True, "no address"), ("https://[a", True, "no address"), (5, True, "no add"),
        ("https://a.example:99999", True, "no address"), (None, True, "no address"),
        (b"https://a.example", True, "no address"),
    ],
)  # fmt: skip
def test_outgoing_addresses_are_judged(url: Any, allowed: bool, words: str | None) -> None:
    """If this breaks, commands and incidents go over the network in clear."""
    found = list(fault_of_url(url, "here", allowed))

    assert (words is None) == (not found)
    assert words is None or (words in found[0] and found[0].startswith("here: found "))


def test_loopback_and_folders_are_told_from_their_text() -> None:
    """If this breaks, an open port counts as private, or the log lies in another folder."""
    assert all(map(is_loopback, ("localhost", "127.9.9.9", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "localhost.example", "128.0.0.1")))
    assert ["./x", "x", "/x/y", "/x"] == [
        local_path(url) for url in ("local:./x", "local:x", "local:///x/y", "local:/x")
    ]


ODD: st.SearchStrategy[Any] = st.sampled_from([
    None, True, 0, -1, 10**30, float("nan"), float("inf"), "", "x", "*", "${A}", "${NOPE}", [], {},
    [[]], {"kind": "x"}, {"x": {1: 2}}, "http://a.example", "local:x", "7d", b"\xff", "\0",
    {"signal": "prometheus", "query": "a{", "max": 1}, [{"signal": "cost", "max": 1}],
])  # fmt: skip


def mutated(data: Any, chooser: random.Random, odd: Any) -> Any:
    """The same settings with one value, key or item changed somewhere."""
    if isinstance(data, dict) and data and chooser.random() < 0.8:
        key = chooser.choice(list(data))
        if chooser.random() < 0.15:
            other = chooser.choice([f"{key}_file", str(key)[:-1], 5, "policies"])
            return {(other if k == key else k): v for k, v in data.items()}
        return data | {key: mutated(data[key], chooser, odd)}
    if isinstance(data, list) and data and chooser.random() < 0.8:
        at = chooser.randrange(len(data))
        return [mutated(v, chooser, odd) if i == at else v for i, v in enumerate(data)]
    return odd


@settings(max_examples=80)
@given(st.randoms(use_true_random=False), st.lists(ODD, min_size=1, max_size=4))
def test_a_mutated_file_is_accepted_or_gives_faults(chooser: random.Random, odd: list[Any]) -> None:
    """If this breaks, a wrong line ends the daemon with a stack trace instead of a sentence."""
    data = yaml.safe_load(CONTRACT)
    for value in odd:
        data = mutated(data, chooser, value)
    try:
        config = parse(yaml.safe_dump(data), Path("/nonexistent"), {"A": "1"})
    except ConfigFaults as faults:
        assert faults.lines
        assert all(": " in line for line in faults.lines)
    else:
        assert config.policies


@given(st.text() | st.text(st.sampled_from("policies: [{&*!|>-\n\t'\"?,model}]#%@`")))
def test_any_text_is_settings_or_gives_faults(text: str) -> None:
    """If this breaks, a half-saved file ends the daemon with a stack trace."""
    with pytest.raises(ConfigFaults):
        parse(text, Path("/nonexistent"), {})
