"""Only public addresses are contacted, in whatever disguise the others come."""

import ipaddress

import pytest

from clipwarden.shared.addresses import AddressRefused, Rules, check_callback, is_public, parse, resolve
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import Settings, load_settings

RULES = Rules()

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of cloud machines
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.251",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "240.0.0.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "100::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address):
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(AddressRefused, match="not a public address"):
        parse(f"http://{host}/", RULES)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::8.8.8.8"],
)
def test_a_public_address_is_allowed(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "0",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "①②⑦.⓪.⓪.①",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
    ],
)
def test_a_loopback_address_is_known_however_it_is_written(host):
    with pytest.raises(AddressRefused, match="not a public address"):
        parse(f"http://{host}/x", RULES)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/a",
        "//example.com/a",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "gopher://example.com/_x",
        "javascript:alert(1)",
        "http://",
        "http:///a",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1#@example.com/",
        "http://127.0.0.1\\@example.com/",
        "http://example.com\\.evil.com/",
        "http://exam ple.com/",
        "http://example.com/\r\nHost: inside",
        "http://example.com\t/",
        "http://example.com:22/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://[::1",
        "http://[fe80::1%eth0]/",
        "http://exa%6dple.com/",
        "http://.example.com/",
        "http://" + "a" * 254 + "/",
        "http://example.com/" + "a" * 2048,
    ],
)
def test_an_odd_url_is_refused(url):
    with pytest.raises(AddressRefused):
        parse(url, RULES)


def test_a_url_is_taken_apart():
    target = parse("https://Bücher.Example./ä b?q=ü&r=%20#part".replace(" ", "%20"), RULES)
    assert (target.tls, target.host, target.port) == (True, "xn--bcher-kva.example", 443)
    assert target.path == "/%C3%A4%20b?q=%C3%BC&r=%20"
    assert parse("http://example.com", RULES).path == "/"


def test_one_private_address_among_public_ones_refuses_the_name():
    target = parse("http://example.com/", RULES)
    assert resolve(target, RULES, lambda *_: ["1.1.1.1", "2606:4700::1111", "1.1.1.1"]) == [
        "1.1.1.1",
        "2606:4700::1111",
    ]
    with pytest.raises(AddressRefused):
        resolve(target, RULES, lambda *_: ["1.1.1.1", "10.0.0.1"])


def test_an_operator_opens_private_networks_and_ports():
    rules = Rules.of(load_settings(outbound_private="10.1.0.0/16, ::1/128", outbound_ports="443,8443"))
    assert parse("https://10.1.2.3:8443/", rules).port == 8443
    assert parse("https://[::1]/", rules).host == "::1"
    with pytest.raises(AddressRefused):
        parse("https://10.2.0.1/", rules)
    with pytest.raises(AddressRefused):
        parse("http://10.1.2.3/", rules)
    with pytest.raises(ConfigError, match="CLIPWARDEN_OUTBOUND_PRIVATE"):
        load_settings(outbound_private="10.1.0.1/16")


def test_nothing_private_is_open_by_default():
    assert Rules.of(Settings()) == RULES


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("hooks.example.com", True),
        ("HOOKS.Example.com", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("hooks.example.com.evil.net", False),
        ("example.com", False),
    ],
)
def test_a_key_allows_the_hosts_it_lists(host, allowed):
    hosts = {"hooks.example.com", "*.example.org"}
    if allowed:
        assert check_callback(f"https://{host}/x", RULES, hosts).host == host.lower()
    else:
        with pytest.raises(AddressRefused, match="key"):
            check_callback(f"https://{host}/x", RULES, hosts)


def test_a_key_without_hosts_allows_none_and_no_key_allows_public_ones():
    with pytest.raises(AddressRefused, match="key"):
        check_callback("https://example.com/", RULES, frozenset())
    assert check_callback("https://example.com/", RULES, None)
    with pytest.raises(AddressRefused, match="public"):
        check_callback("http://127.0.0.1/", RULES, None)
