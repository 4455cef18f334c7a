"""No address in a settings file or an answer leads inside."""

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.addresses import HttpFault, Reach, fault_of_address, judge, read_networks, resolve

FORBIDDEN = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.254 127.0.0.2 127.1.1.1 169.254.169.254
169.254.170.2 172.16.0.1 172.31.255.254 192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.1
203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::a9fe:a9fe
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:100.64.0.1 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b::a00:1 64:ff9b:1::1 64:ff9b::1 2001::1 2001:db8::1 2002:7f00:1::1
2002:a9fe:a9fe::1 2002:c0a8:101::1 100::1 fc00::1 fd00:ec2::254 fdff::1 fe80::1 fec0::1 ff02::1
5f00::1"""

PUBLIC = "1.1.1.1 8.8.8.8 93.184.216.34 2606:4700:4700::1111 64:ff9b::101:101 ::ffff:1.1.1.1"

TRICKS = """
http://example.com/ ftp://example.com/ file:///etc/passwd gopher://127.0.0.1/ //example.com/
https:///path https:// https://user:pw@example.com/ https://user@example.com/ https://[::1
https://example.com:99999/ https://example.com:port/ javascript:alert(1) example.com
http://127.0.0.1.example.com/ http://localhost.example.com/ https://exa\\mple.com/ https://:443/
https://example.com:0/ https://[example.com]/ https://1.1.1.1%2f@10.0.0.1/"""

PLAIN = Reach()


def refused(url: str, *answers: str, reach: Reach = PLAIN) -> str:
    async def look_up(_: str, __: int) -> Sequence[str]:
        return answers

    try:
        asyncio.run(judge(url, reach, look_up))
    except HttpFault as fault:
        return fault.kind
    return "reached"


@pytest.mark.parametrize("address", FORBIDDEN.split())
def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    """If this breaks, a webhook address reads a cloud's credentials or the private network."""
    assert "refused" == refused("https://hooks.example.com/x", address)
    # One bad address among good ones is enough: the connection may go to any of them.
    assert "refused" == refused("https://hooks.example.com/x", "1.1.1.1", address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses_are_reached(address: str) -> None:
    """If this breaks, no alert and no command leaves."""
    assert "reached" == refused("https://hooks.example.com/x", address)


@pytest.mark.parametrize("url", TRICKS.split())
def test_tricks_with_the_address_itself_are_refused(url: str) -> None:
    """If this breaks, plain http, credentials or another protocol slip through."""
    assert "refused" == refused(url, "1.1.1.1")


@pytest.mark.parametrize(
    "url",
    [
        "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/",
        "https://0/", "https://0x7f.1/", "https://[::ffff:169.254.169.254]/",
        "https://169.254.169.254/latest/meta-data/", "https://10.0.0.1/", "https://[fd00::1]/",
        "https://[fe80::1]/", "https://[64:ff9b::7f00:1]/", "https://0.0.0.0/",
        "https://①②⑦.⓪.⓪.①/", "https://127.0.0.1。/", "http://[::ffff:10.0.0.1]/",
    ],
)  # fmt: skip
async def test_odd_forms_of_inner_addresses_are_refused(url: str) -> None:
    """If this breaks, a number in another notation leads inside; the real resolver reads them."""
    with pytest.raises(HttpFault) as raised:
        await judge(url, Reach(allow_http=True), resolve)
    # A form that is no number here cannot be resolved; that is as good.
    assert raised.value.kind in ("refused", "unsent")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_loopback_is_reached_where_it_is_written_as_such(host: str) -> None:
    """If this breaks, nobody can try a webhook on their own machine."""

    async def look_up(_: str, __: int) -> Sequence[str]:
        return ["::1"] if host == "[::1]" else ["127.0.0.1"]

    target = await judge(f"http://{host}:8080/x", Reach(), look_up)

    assert target.addresses[0].is_loopback


def test_localhost_that_resolves_elsewhere_is_refused() -> None:
    """If this breaks, an entry in a hosts file turns http on for another machine."""
    assert "refused" == refused("http://localhost/", "10.0.0.1")


def test_settings_can_allow_a_private_network_and_only_that() -> None:
    """If this breaks, a deployer inside the cluster cannot be used, or all of it is open."""
    reach = Reach(allow_private=read_networks(["10.1.0.0/16", "fd00::5"]))

    assert "reached" == refused("https://deployer.internal/", "10.1.2.3", reach=reach)
    assert "reached" == refused("https://deployer.internal/", "fd00::5", reach=reach)
    assert "refused" == refused("https://deployer.internal/", "10.2.0.1", reach=reach)
    assert "refused" == refused("http://deployer.internal/", "10.1.2.3", reach=reach)
    plain = Reach(True, reach.allow_private)
    assert "reached" == refused("http://deployer.internal/", "10.1.2.3", reach=plain)


@pytest.mark.parametrize("texts", ["10.0.0.0/8", ["10.0.0.1/8"], ["inside"], [None]])
def test_a_network_that_is_none_is_named(texts: list[str]) -> None:
    """If this breaks, a mistyped network opens more than was meant."""
    with pytest.raises(ValueError, match="allow_private"):
        read_networks(texts)


def test_a_name_without_an_address_may_be_tried_again() -> None:
    """If this breaks, a passing DNS outage ends a rollback for good."""
    assert "unsent" == refused("https://hooks.example.com/")


@given(st.ip_addresses(v=4))
def test_every_way_to_carry_an_ipv4_is_judged_as_that_ipv4(address: ipaddress.IPv4Address) -> None:
    """If this breaks, wrapping an inner address in IPv6 gets around the check."""
    number = int(address)
    wrapped = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
    ]

    plain = fault_of_address(address) is None

    assert [plain] * 3 == [fault_of_address(form) is None for form in wrapped]
