"""Which addresses that users name may be contacted: the guard against requests forged through the server.

A name is judged by every address it resolves to, a number however it is written, and whoever connects uses the very
addresses that were judged, so that a second answer of the name server changes nothing.
"""

import ipaddress
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self
from urllib.parse import quote, urlsplit

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import ClipwardenError
from clipwarden.shared.settings import Settings

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Lookup = Callable[[str, int], Sequence[str]]
"""The addresses of a host; raises OSError."""

URL_CHARACTERS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
IN_URLS = "!#$%&'()*+,/:;=?@[]~"
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
UNICAST6 = ipaddress.IPv6Network("2000::/3")
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""An IPv4 address as NAT64 shows it (RFC 6052)."""
NEVER_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments, which the standard library excepts only in part
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # the platform itself, seen from machines of one large cloud
            "2002::/16",  # 6to4: an IPv4 address in disguise
            "3fff::/20",  # documentation
        ),
    )
)


class AddressRefused(ClipwardenError):  # noqa: N818 - what happened to it
    """This address is not to be contacted, now or later."""

    code = RejectCode.FETCH_REFUSED


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart, the only form in which it is used: `host` in ASCII without brackets, `path` with its query."""

    url: str
    tls: bool
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be contacted: public addresses, and those of the private networks that the operator opened."""

    ports: frozenset[int] = frozenset(DEFAULT_PORTS.values())
    private: tuple[Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            frozenset(settings.outbound_ports),
            tuple(ipaddress.ip_network(network) for network in settings.outbound_private),
        )

    def allow(self, address: IP) -> bool:
        return is_public(address) or any(address in network for network in self.private)


def is_public(address: IP) -> bool:
    """Whether an address is somebody's on the internet, and not one of the forms that lead elsewhere."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(inner)
        if address not in UNICAST6:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in NEVER_PUBLIC)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a mapped or translated one stands for."""
    if address in TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


def parse(url: str, rules: Rules) -> Target:
    """Take a URL apart, without asking any name server. Raises AddressRefused unless it could be contacted."""
    if len(url) > URL_CHARACTERS:
        raise AddressRefused(f"The address is over {URL_CHARACTERS} characters.")
    if any(c <= " " or c in '\\"<>^`{|}\x7f' for c in url):  # parsers disagree on these
        raise AddressRefused("The address holds characters that must be percent-encoded.")
    try:
        parts = urlsplit(url)
        port = DEFAULT_PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
        host = _ascii(parts.hostname or "")
        path = quote(parts.path or "/", IN_URLS) + (f"?{quote(parts.query, IN_URLS)}" if parts.query else "")
    except (ValueError, UnicodeError) as error:
        raise AddressRefused(f"The address is malformed: {error}.") from error
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise AddressRefused("The address must begin with http:// or https:// and name a host.")
    if "@" in parts.netloc:
        raise AddressRefused("The address holds a user name; addresses with credentials are not used.")
    if port not in rules.ports:
        raise AddressRefused(f"Port {port} is not allowed; the operator allows it in CLIPWARDEN_OUTBOUND_PORTS.")
    target = Target(url.partition("#")[0], parts.scheme == "https", host, port, path)
    if (address := literal(host)) is not None:
        _admit(target, [address], rules)
    return target


def _ascii(host: str) -> str:
    """A host name as the name system knows it. Raises ValueError for what is none."""
    if ":" in host:
        return str(ipaddress.IPv6Address(host))  # a scope, such as %eth0, stays and is refused with its address
    name = (host if host.isascii() else host.encode("idna").decode("ascii").lower()).removesuffix(".")
    if len(name) > 253 or not all(c.isalnum() or c in "-._" for c in name) or name.startswith("."):
        raise ValueError(f"{name[:64]!r} is not a host name")
    return name


def literal(host: str) -> IP | None:
    """The address that a host in numbers stands for, as the C library reads them (127.1, 0x7f.1), or `localhost`."""
    if ":" in host:
        return ipaddress.ip_address(host)
    if host == "localhost" or host.endswith(".localhost"):
        return LOOPBACK
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def resolve(target: Target, rules: Rules, lookup: Lookup | None = None) -> list[str]:
    """The addresses to connect to, every one of them allowed. Raises AddressRefused, or OSError if there are none."""
    known = literal(target.host)
    found = [str(known)] if known is not None else (lookup or system_lookup)(target.host, target.port)
    addresses = [ipaddress.ip_address(a) for a in found]
    _admit(target, addresses, rules)
    return list(dict.fromkeys(map(str, addresses)))


def _admit(target: Target, addresses: Sequence[IP], rules: Rules) -> None:
    if not all(map(rules.allow, addresses)):
        raise AddressRefused(
            f"{target.host} is not a public address; the operator allows private networks in"
            " CLIPWARDEN_OUTBOUND_PRIVATE."
        )


def system_lookup(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver gives. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of the name is empty or too long
        raise OSError(f"{host} is not a host name") from error
    return [str(address[0]) for *_, address in found]


def check_callback(url: str, rules: Rules, hosts: Collection[str] | None) -> Target:
    """A URL that may be told of analyses. Raises AddressRefused.

    `hosts` are the names that a key allows, `*.` standing for any names before; None where no keys are in use.
    """
    target = parse(url, rules)
    if hosts is not None and not any(map(partial(_matches, target.host), hosts)):
        raise AddressRefused(f"This key may not have {target.host} told; the operator adds the host to the key.")
    return target


def _matches(host: str, pattern: str) -> bool:
    wanted = pattern.strip().lower()
    return host.endswith(wanted[1:]) and len(host) > len(wanted[1:]) if wanted.startswith("*.") else host == wanted
