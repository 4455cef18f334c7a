"""How an API server is reached: credentials, certificates, addresses, and what they refuse."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.act.adapters import cluster
from service.act.adapters.base import PlatformFault
from service.act.adapters.cluster import Cluster, read_login
from service.addresses import Reach
from tests.kube import Kube

SECRET = "canary-token-canary-token"


def written(file: Path, user: dict[str, Any] | None = None, **changes: Any) -> str:
    made = {"server": "https://127.0.0.1:1", **changes}
    text = yaml.safe_dump(
        {
            "clusters": [{"name": "c", "cluster": made}],
            "users": [{"name": "u", "user": {"token": SECRET} if user is None else user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )
    file.write_text(text)
    return str(file)


@pytest.mark.kube
async def test_the_real_server_is_read_over_tls(kube: Kube, tmp_path: Path) -> None:
    """If this breaks, no cluster can be reached as its kubeconfig says."""
    file = kube.kubeconfig(tmp_path / "config", str(kube.login.token))

    assert "major" in await Cluster(str(file), None, Reach(), 30.0).get("/version")


@pytest.mark.kube
async def test_a_server_with_another_certificate_is_not_believed(
    kube: Kube, tmp_path: Path
) -> None:
    """If this breaks, whoever stands between us and the cluster gets the token."""
    file = kube.kubeconfig(tmp_path / "config", str(kube.login.token))
    read = yaml.safe_load(file.read_text())
    del read["clusters"][0]["cluster"]["certificate-authority"]
    file.write_text(yaml.safe_dump(read))

    with pytest.raises(PlatformFault, match="certificate") as fault:
        await Cluster(str(file), None, Reach(), 30.0).get("/version")
    assert "permanent" == fault.value.kind


@pytest.mark.kube
async def test_a_token_file_is_read_for_every_call(kube: Kube, tmp_path: Path) -> None:
    """If this breaks, a rotated token stops all rollbacks after an hour."""
    file = kube.kubeconfig(tmp_path / "config", "x")
    read = yaml.safe_load(file.read_text())
    read["users"][0]["user"] = {"tokenFile": "token"}
    file.write_text(yaml.safe_dump(read))
    (tmp_path / "token").write_text("old")
    reached = Cluster(str(file), None, Reach(), 30.0)

    with pytest.raises(PlatformFault) as fault:
        await reached.get("/api/v1/namespaces")
    (tmp_path / "token").write_text(f"{kube.login.token}\n")

    assert "credentials" == fault.value.kind
    assert (await reached.get("/api/v1/namespaces"))["items"]


@pytest.mark.kube
async def test_inside_a_cluster_the_account_s_files_are_enough(
    kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, the daemon cannot run in the cluster whose traffic it moves."""
    (tmp_path / "token").write_text(str(kube.login.token))
    (tmp_path / "ca.crt").write_text(str(kube.login.ca))
    monkeypatch.setattr(cluster, "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(kube.server.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(kube.server.port))

    assert "major" in await Cluster(None, None, Reach(), 30.0).get("/version")


async def test_outside_a_cluster_a_file_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this breaks, a missing setting shows as a stack trace."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(PlatformFault, match="kubeconfig") as fault:
        await Cluster(None, None, Reach(), 5.0).get("/version")
    assert "credentials" == fault.value.kind


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("https://10.0.0.1:6443", "allow_private"),
        ("http://10.0.0.1:6443", "https"),
        ("https://169.254.169.254", "metadata"),
        ("https://user:pass@127.0.0.1:1", "without a user"),
    ],
)
async def test_addresses_are_judged_like_all_others(
    tmp_path: Path, server: str, words: str
) -> None:
    """If this breaks, a kubeconfig sends our token to a cloud's metadata service."""
    file = written(tmp_path / "config", server=server)

    with pytest.raises(PlatformFault, match=words) as fault:
        await Cluster(file, None, Reach(), 5.0).get("/version")
    assert SECRET not in str(fault.value)


@pytest.mark.parametrize(
    ("user", "changes", "words"),
    [
        ({"exec": {"command": "aws"}}, {}, "runs a program"),
        ({"auth-provider": {"name": "gcp"}}, {}, "needs a program"),
        ({"token": SECRET, "as": "admin"}, {}, "impersonates"),
        ({"username": "a", "password": SECRET}, {}, "password"),
        (None, {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
        (None, {"proxy-url": "http://x"}, "proxy-url"),
        (None, {"certificate-authority-data": "%%"}, "no base64"),
        (None, {"certificate-authority": "nowhere"}, "No such file"),
    ],
)
def test_a_kubeconfig_that_asks_for_more_is_refused(
    tmp_path: Path, user: dict[str, Any] | None, changes: dict[str, Any], words: str
) -> None:
    """If this breaks, a settings file runs a program, or a token goes over an open line."""
    file = written(tmp_path / "config", user, **changes)

    with pytest.raises(PlatformFault, match=words) as fault:
        read_login(file, None)
    assert SECRET not in str(fault.value)


@pytest.mark.parametrize("text", ["", "[]", f"users: [{SECRET}", "a: !!python/object:x {}", "1"])
def test_a_broken_kubeconfig_is_said_to_be_one_and_not_shown(tmp_path: Path, text: str) -> None:
    """If this breaks, a YAML error shows the lines around it, tokens included."""
    (tmp_path / "config").write_text(text)

    with pytest.raises(PlatformFault, match="kubeconfig") as fault:
        read_login(str(tmp_path / "config"), None)
    assert SECRET not in str(fault.value)


def test_a_login_shows_nothing(tmp_path: Path) -> None:
    """If this breaks, a log of the settings holds the key to the cluster."""
    pem = base64.b64encode(b"canary-key").decode()
    user = {"token": SECRET, "client-certificate-data": pem, "client-key-data": pem}
    login = read_login(written(tmp_path / "config", user), None)

    assert ("canary-key", "canary-key") == login.certificate
    assert "canary" not in repr(login)
