"""The HTTP client for addresses that users name, against real servers on loopback."""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time

import pytest

from clipwarden.shared.addresses import AddressRefused, Rules
from clipwarden.shared.outbound import NoAnswer, Outbound, ReplyTooLarge
from tests.listeners import answer, listening, raw

LOOPBACK = tuple(map(ipaddress.ip_network, ("127.0.0.1/32", "127.0.0.2/32")))
ROOM = 10_000


@pytest.fixture
def server():
    with listening() as listener:
        yield listener


def client(*listeners, **more):
    return Outbound(Rules(frozenset(listener.port for listener in listeners), LOOPBACK), **more)


def fetch(outbound, url, timeout_s=5.0):
    with outbound.get(url, timeout_s) as reply:
        return reply, b"".join(reply.chunks(ROOM))


def test_a_body_arrives_whole(server):
    server.answers = [answer(body=b"x" * 9_999, Content_Type="video/mp4")]
    reply, body = fetch(client(server), f"{server.url}/a%20b?c=d#e")
    assert (reply.status, reply.headers["content-type"], len(body)) == (200, "video/mp4", 9_999)
    asked = server.received[0]
    assert asked.path == "/a%20b?c=d"
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"
    assert asked.headers["accept-encoding"] == "identity"


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(client(server), server.url)[0].status == 200


def test_what_the_name_resolved_to_first_is_what_is_contacted():
    """The name server answers once with an allowed address and from then on with a forbidden one."""
    with listening("127.0.0.1") as allowed, listening("127.0.0.3") as forbidden:
        answers = iter([["127.0.0.1"]])
        asked = []

        def rebinding(host, port):
            asked.append(host)
            return next(answers, ["127.0.0.3"])

        outbound = client(allowed, forbidden, lookup=rebinding)
        assert fetch(outbound, f"http://rebind.example:{allowed.port}/")[0].status == 200
        assert asked == ["rebind.example"]
        assert allowed.received[0].headers["host"] == f"rebind.example:{allowed.port}"
        with pytest.raises(AddressRefused):
            fetch(outbound, f"http://rebind.example:{forbidden.port}/")
        assert forbidden.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_each_is_judged(server, status):
    server.answers = [answer(status, Location="/next?x"), answer(body=b"there")]
    assert fetch(client(server), f"{server.url}/first")[1] == b"there"
    assert [r.path for r in server.received] == ["/first", "/next?x"]


def test_a_redirect_to_a_private_address_is_refused(server):
    with listening("127.0.0.3") as inside:
        for location in (
            inside.url,
            "http://169.254.169.254/latest/",
            "file:///etc/passwd",
            "http://[::1]/",
            "http://[",
        ):
            server.answers = [answer(302, Location=location)]
            with pytest.raises(AddressRefused):
                fetch(client(server, inside), server.url)
        assert inside.received == []


def test_a_redirect_to_a_name_of_a_private_address_is_refused(server):
    server.answers = [answer(302, Location=f"http://inside.example:{server.port}/")]
    with pytest.raises(AddressRefused):
        fetch(client(server, lookup=lambda *_: ["192.168.0.1"]), server.url)


def test_endless_redirects_end(server):
    server.answers = [answer(302, Location="/again")]
    with pytest.raises(AddressRefused, match="more than 5"):
        fetch(client(server), server.url)
    assert len(server.received) == 6


def test_a_post_follows_no_redirect(server):
    server.answers = [answer(307, Location="/elsewhere")]
    reply = client(server).post(f"{server.url}/hook", b"{}", {"Webhook-Id": "1"}, 5)
    assert reply.status == 307
    assert [(r.method, r.path, r.body) for r in server.received] == [("POST", "/hook", b"{}")]


def test_a_body_over_the_limit_is_not_read(server):
    server.answers = [answer(body=b"x" * (ROOM + 1))]
    with pytest.raises(ReplyTooLarge):
        fetch(client(server), server.url)


def test_a_body_that_hides_its_length_is_cut_at_the_limit(server):
    endless = raw(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 4096] * 100)
    server.answers = [endless]
    with pytest.raises(ReplyTooLarge):
        fetch(client(server), server.url)


def test_chunked_bodies_are_read_and_counted(server):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answers = [raw(head, b"5\r\nhello\r\n", b"0\r\n\r\n")]
    assert fetch(client(server), server.url)[1] == b"hello"
    server.answers = [raw(head, b"5\r\nhel")]
    with pytest.raises(NoAnswer):
        fetch(client(server), server.url)


def test_a_body_that_breaks_off_is_no_answer(server):
    server.answers = [raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x" * 40)]
    with pytest.raises(NoAnswer, match="after 40 of 100"):
        fetch(client(server), server.url)


@pytest.mark.parametrize(
    "opening", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_a_server_that_drips_does_not_outlast_the_time(server, opening):
    stop = threading.Event()
    drip = b"HTTP/1.1 100 Continue\r\n\r\n" if opening.endswith(b"Continue\r\n\r\n") else b"x"
    sent: list[bool] = []
    server.answers = [raw(opening, *[drip] * 200, pause=lambda: sent.append(stop.wait(0.05)))]
    with pytest.raises(NoAnswer, match="time is over"):
        fetch(client(server), server.url, timeout_s=0.3)
    assert len(sent) < 200
    stop.set()


def test_addresses_that_do_not_answer_share_the_time():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, contextlib.ExitStack() as stack:
        port = deaf.getsockname()[1]
        for _ in range(4):  # fill the queue of connections that nobody accepts
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        outbound = Outbound(Rules(frozenset({port}), LOOPBACK), lookup=lambda *_: ["127.0.0.1"] * 20)
        started = time.monotonic()
        with pytest.raises(NoAnswer):
            fetch(outbound, f"http://deaf.example:{port}/", timeout_s=0.3)
        assert time.monotonic() - started < 20 * 0.3


def test_a_name_without_addresses_and_a_closed_port_are_no_answer(server):
    def unknown(host, port):
        raise OSError("no such name")

    with pytest.raises(NoAnswer, match="not known"):
        fetch(client(server, lookup=unknown), f"http://gone.example:{server.port}/")
    with listening() as closed:
        pass
    with pytest.raises(NoAnswer):
        fetch(client(closed), closed.url)


def test_words_that_are_not_http_are_no_answer(server):
    server.answers = [raw(b"220 mail.example ESMTP\r\n")]
    with pytest.raises(NoAnswer):
        fetch(client(server), server.url)


# A key that protects nothing, and a certificate of it for clips.example that signs itself and lasts a century.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgTX1u8j20066nHl26
IaC24pbbayvU33o9nOKq8sfVq+yhRANCAAR3Bzbh20V2T7fmSaNpOHoGU45pj0os
c71UoatFUpKPNar+KunRHEfNadZs54AIQvzRtaLekXpF36HoaB593dhN
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBsTCCAVegAwIBAgIUL16a5DxjUZ2J6jBnf2xDMLyCIEYwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNY2xpcHMuZXhhbXBsZTAgFw0yNjExMjExNzI2MzFaGA8yMTI2
MTAyODE3MjYzMVowGDEWMBQGA1UEAwwNY2xpcHMuZXhhbXBsZTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABHcHNuHbRXZPt+ZJo2k4egZTjmmPSixzvVShq0VSko81
qv4q6dEcR81p1mzngAhC/NG1ot6RekXfoehoHn3d2E2jfTB7MB0GA1UdDgQWBBQv
Y/6j+Qlcmi27QmwFznVDRJ8SYjAfBgNVHSMEGDAWgBQvY/6j+Qlcmi27QmwFznVD
RJ8SYjAPBgNVHRMBAf8EBTADAQH/MBgGA1UdEQQRMA+CDWNsaXBzLmV4YW1wbGUw
DgYDVR0PAQH/BAQDAgKEMAoGCCqGSM49BAMCA0gAMEUCIQClTdNLOGfczL4aJTbQ
esaN4iz/41ajCBAztjDHUM6sxgIgTfc8pksTQMpx3tSTRIbcQ4kXJgEBegwkRGV9
cKXOpzk=
-----END CERTIFICATE-----
"""


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "server.pem"
    path.write_text(CERTIFICATE, encoding="ascii")
    return path


@pytest.fixture
def secure_server(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with listening(context=context) as listener:
        yield listener


def test_tls_is_checked_against_the_name_not_the_pinned_address(secure_server, certificate):
    trusting = ssl.create_default_context(cafile=certificate)
    outbound = client(secure_server, lookup=lambda *_: ["127.0.0.1"], context=trusting)
    assert fetch(outbound, f"https://clips.example:{secure_server.port}/")[0].status == 200
    with pytest.raises(NoAnswer, match="certificate is not valid: Hostname mismatch"):
        fetch(outbound, f"https://other.example:{secure_server.port}/")


def test_a_certificate_of_nobody_is_no_answer(secure_server):
    with pytest.raises(NoAnswer, match="certificate is not valid"):
        fetch(client(secure_server, lookup=lambda *_: ["127.0.0.1"]), f"https://clips.example:{secure_server.port}/")
