"""What leaves by HTTP goes where it was judged to go, once, in bounded time and size."""

import asyncio
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiohttp import web

from service.addresses import Reach, read_networks
from service.http import BODY_LIMIT, Http, HttpFault, retry_after_s
from tests.real import free_port
from tests.receiver import Answer, receiving


async def test_an_answer_is_an_answer_whatever_its_status() -> None:
    """If this breaks, a refusal by the other side looks like an outage."""
    later = Answer(429, {"Retry-After": "7", "X-Name": "Value"}, b'{"a": 1}')
    async with receiving(later) as receiver:
        reply = await Http().post(f"{receiver.url}/hook", json={"b": 2})

    assert (429, b'{"a": 1}', 7.0, {"a": 1}) == (*reply[:1], *reply[2:], reply.json())
    assert "Value" == reply.headers["x-name"]
    assert (b'{"b":2}', "application/json") == (
        receiver.got[0].body,
        receiver.got[0].headers["content-type"],
    )


async def test_redirects_are_not_followed() -> None:
    """If this breaks, a receiver can send a signed command to somebody else."""
    async with receiving(Answer(302, {"Location": "/elsewhere"})) as receiver:
        reply = await Http().post(f"{receiver.url}/hook", json={})

    assert (302, ["/hook"]) == (reply.status, [got.path for got in receiver.got])


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this breaks, whoever sets a variable sees every command."""
    async with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        await Http().get(receiver.url)

    assert ([], 1) == (proxy.got, len(receiver.got))


async def test_the_connection_goes_to_the_judged_address_under_the_hosts_name() -> None:
    """If this breaks, a DNS answer that changes after the check is followed."""
    asked: list[str] = []

    async def rebinding(host: str, _: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    reach = Reach(allow_http=True, allow_private=read_networks(["127.0.0.1"]))
    async with receiving() as receiver:
        port = receiver.url.rpartition(":")[2]
        http_ = Http(reach, look_up=rebinding)
        await http_.get(f"http://hooks.example.com:{port}/x")
        with pytest.raises(HttpFault, match=r"127\.0\.0\.2 is loopback") as raised:
            await http_.get(f"http://hooks.example.com:{port}/x")

    assert f"hooks.example.com:{port}" == receiver.got[0].headers["host"]
    assert ("refused", 1) == (raised.value.kind, len(receiver.got))


async def test_the_next_address_is_tried_when_one_does_not_listen() -> None:
    """If this breaks, a host with a dead IPv6 address cannot be reached."""

    async def both(_: str, __: int) -> Sequence[str]:
        return ["127.0.0.9", "127.0.0.1"]

    async with receiving() as receiver:
        port = receiver.url.rpartition(":")[2]
        reply = await Http(look_up=both).get(f"http://localhost:{port}/")

    assert 200 == reply.status


async def test_what_was_never_sent_and_what_may_have_been_done_are_told_apart() -> None:
    """If this breaks, a command is sent twice, or a rollback is given up too soon."""
    with pytest.raises(HttpFault, match="refused or reset") as unsent:
        await Http().post(f"http://127.0.0.1:{free_port()}/", json={})
    slow = Answer(after_s=5)
    async with receiving(Answer(breaks_off=True), slow) as receiver:
        with pytest.raises(HttpFault) as broken:
            await Http().post(f"{receiver.url}/", json={})
        with pytest.raises(HttpFault, match="no answer within 0") as late:
            await Http(deadline_s=0.2).post(f"{receiver.url}/", json={})

    kinds = [fault.value.kind for fault in (unsent, broken, late)]
    assert ["unsent", "unknown", "unknown"] == kinds


async def test_an_answer_that_breaks_off_is_not_believed() -> None:
    """If this breaks, half an answer is read as a whole one."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"status":"applied"')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HttpFault) as raised:
            await Http().get(f"http://127.0.0.1:{port}/")

    assert "unknown" == raised.value.kind


async def test_a_trickle_of_bytes_meets_the_total_deadline() -> None:
    """If this breaks, a receiver that sends a byte a second holds up rollbacks for ever."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            return

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HttpFault, match="no answer within"):
            await Http(deadline_s=0.3).get(f"http://127.0.0.1:{port}/")


async def test_an_endless_answer_is_cut() -> None:
    """If this breaks, one receiver fills the daemon's memory."""
    async with receiving(Answer(body=b"x" * (BODY_LIMIT * 4))) as receiver:
        reply = await Http().get(receiver.url)

    assert BODY_LIMIT == len(reply.body)


async def test_errors_never_show_the_address() -> None:
    """If this breaks, whoever reads a log can post to the team's channel."""
    port = free_port()
    urls = [
        f"http://127.0.0.1:{port}/services/canary-secret?token=canary-secret",
        "http://example.com/canary-secret",
        "https://canary-secret:canary-secret@example.com/",
        "https://[canary-secret/",
    ]
    texts = []
    for url in urls:
        with pytest.raises(HttpFault) as raised:
            await Http().post(url, json={})
        texts.append(str(raised.value) + repr(raised.value.__cause__))

    assert "canary-secret" not in " ".join(texts)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate of hooks.example.com."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", "-days", "2", "-subj", "/CN=hooks.example.com"]
    make += ["-addext", "subjectAltName=DNS:hooks.example.com"]
    make += ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    subprocess.run(make, check=True, capture_output=True)
    return tmp_path


async def test_the_hosts_name_is_what_its_certificate_must_say(certificate: Path) -> None:
    """If this breaks, pinning an address switches the check of certificates off."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate / "cert", certificate / "key")
    names: list[str | None] = []
    tls.sni_callback = lambda _, name, __: names.append(name)

    async def here(_: str, __: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async def ok(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/", ok)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        reach = Reach(allow_private=read_networks(["127.0.0.1"]))
        trusting = Http(reach, ca_file=str(certificate / "cert"), look_up=here)
        reply = await trusting.get(f"https://hooks.example.com:{port}/")
        faults = []
        for client, host in ((trusting, "other.example.com"), (Http(reach, look_up=here), "")):
            with pytest.raises(HttpFault, match="certificate") as raised:
                await client.get(f"https://{host or 'hooks.example.com'}:{port}/")
            faults.append(raised.value.kind)
    finally:
        await runner.cleanup()

    assert (200, "hooks.example.com") == (reply.status, names[0])
    assert ["refused", "refused"] == faults


def test_requests_are_awaited_only_when_sent() -> None:
    """If this breaks, the kill point between call and answer lies in the wrong place."""
    seen: list[str] = []

    async def scenario() -> None:
        async with receiving() as receiver:
            sent = seen.append
            await Http().request("POST", receiver.url, b"{}", on_sent=lambda: sent("sent"))
        with pytest.raises(HttpFault):
            url = f"http://127.0.0.1:{free_port()}/"
            await Http().request("POST", url, on_sent=lambda: seen.append("never"))

    asyncio.run(scenario())
    assert ["sent"] == seen


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e99"}, 3600.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, None),
        (
            {
                "retry-after": "Thu, 01 Jan 2026 00:00:30 GMT",
                "date": "Thu, 01 Jan 2026 00:00:00 GMT",
            },
            30.0,
        ),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(
    headers: dict[str, str], wait_s: float | None
) -> None:
    """If this breaks, we hammer a service that asked for a pause, or wait for ever."""
    assert wait_s == retry_after_s(headers)
