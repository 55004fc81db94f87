"""The server of the page: who may ask for what, and that it goes on whatever comes."""

import base64
import http.client
import json
import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from minillm import InputError, recording
from minillm.page import server as module
from minillm.page.server import MOST_AT_ONCE, Server

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"
MADE = recording.read(RECORDINGS / "tales-draft.recording")


def answer(text, asked, told):
    if text == "wrong":
        raise InputError("this text cannot be continued")
    if text == "broken":
        raise RuntimeError("a secret place: /home/somebody")
    for word in text.split():
        told({"word": word})
        time.sleep(0.02 if text.startswith("slow") else 0)
    yield MADE


@pytest.fixture(scope="module")
def server():
    made = Server("<!doctype html>the page", answer, names=["proxy.example:8443"])
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def ask(server, method="GET", path=None, body=None, **headers):
    """The status, the headers and the text of an answer; names of headers with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    path = f"/{server.token}/" if path is None else path
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, dict(reply.getheaders()), text


def run(server, text, **headers):
    path, body = f"/{server.token}/run", json.dumps({"text": text})
    status, _, lines = ask(server, "POST", path, body, **headers)
    return status, [json.loads(line) for line in lines.splitlines()]


def test_whoever_has_the_address_gets_the_page(server):
    status, headers, text = ask(server)
    assert (status, text) == (200, "<!doctype html>the page")
    assert headers["X-Frame-Options"] == "DENY" and headers["Cache-Control"] == "no-store"
    assert server.address == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    assert len(server.token) >= 20 and server.server_address[0] == "127.0.0.1"


def test_a_page_that_stays_open_hears_that_it_is_there(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", f"/{server.token}/alive")
    reply = connection.getresponse()
    assert reply.status == 200 and reply.read(3) == b":\n\n"
    assert ask(server)[0] == 200  # meanwhile
    connection.close()


def test_a_text_is_answered_as_it_is_written(server):
    status, lines = run(server, "one two")
    assert status == 200 and lines[:2] == [{"word": "one"}, {"word": "two"}]
    assert base64.b64decode(lines[2]["recording"]) == recording.to_bytes(MADE)
    assert run(server, "wrong") == (200, [{"error": "this text cannot be continued"}])


def test_what_breaks_inside_says_nothing_of_the_inside(server, capfd):
    status, (line,) = run(server, "broken")
    assert status == 200 and line["error"].startswith("something is wrong in minillm; the terminal")
    assert run(server, "one")[1][0] == {"word": "one"}
    said = capfd.readouterr().err
    assert said == "minillm explore: RuntimeError: a secret place: /home/somebody\n"


REFUSED = {
    "another host": ({"Host": "evil.example"}, 403),
    "the host without its port": ({"Host": "127.0.0.1"}, 403),
    "a host that begins alike": ({"Host": "127.0.0.1.evil.example"}, 403),
    "another origin": ({"Origin": "http://evil.example"}, 403),
    "no origin of its own": ({"Origin": "null"}, 403),
    "another site": (
        {"method": "POST", "path": "/{token}/run", "body": "{}", "Sec_Fetch_Site": "same-site"},
        403,
    ),
    "no token": ({"path": "/"}, 404),
    "another token": ({"path": "/AAAAAAAAAAAAAAAAAAAAAA/"}, 404),
    "whether it is there, without a token": ({"path": "/alive"}, 404),
    "whether it is there, from elsewhere": (
        {"path": "/{token}/alive", "Origin": "http://evil.example"},
        403,
    ),
    "half a token": ({"path": "/{half}/"}, 404),
    "a file": ({"path": "/{token}/../../etc/passwd"}, 404),
    "a file, encoded": ({"path": "/{token}/%2e%2e/%2e%2e/etc/passwd"}, 404),
    "another method": ({"method": "PUT"}, 501),
    "a long path": ({"path": "/" + "a" * 70_000}, 414),
    "a page to post to": ({"method": "POST", "body": "{}"}, 404),
    "no length": ({"method": "POST", "path": "/{token}/run", "Content_Length": "x"}, 411),
    "a huge body": (
        {"method": "POST", "path": "/{token}/run", "Content_Length": str(10**8)},
        413,
    ),
    "no JSON": ({"method": "POST", "path": "/{token}/run", "body": "x"}, 400),
    "no text": ({"method": "POST", "path": "/{token}/run", "body": '{"a": "b"}'}, 400),
    "no ids": ({"method": "POST", "path": "/{token}/run", "body": '{"ids": ["a"]}'}, 400),
    "no lever": (
        {"method": "POST", "path": "/{token}/run", "body": '{"text": "a", "lever": 3}'},
        400,
    ),
    "no temperature": (
        {
            "method": "POST",
            "path": "/{token}/run",
            "body": '{"text": "a", "drawing": {"temperature": "hot"}}',
        },
        400,
    ),
    "no patch": (
        {
            "method": "POST",
            "path": "/{token}/run",
            "body": '{"ids": [1], "patch": {"layer": 0, "part": "__class__", "head": 0, "at": 0}}',
        },
        400,
    ),
    "no string": ({"method": "POST", "path": "/{token}/run", "body": '{"text": 3}'}, 400),
}


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused(server, case):
    how, expected = REFUSED[case]
    how = dict(how)
    if "path" in how:
        token = server.token
        how["path"] = how["path"].replace("{token}", token).replace("{half}", token[:11])
    status, _, text = ask(server, **how)
    assert (status, text) == (expected, "")
    assert ask(server)[0] == 200


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "proxy.example:8443"])
def test_its_own_names_are_known(server, host):
    host = host.replace("{port}", str(server.server_port))
    assert ask(server, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin")[0] == 200


def test_whoever_hangs_up_ends_their_run(server):
    path, body = f"/{server.token}/run", json.dumps({"text": "slow " * 500})
    with socket.create_connection(("127.0.0.1", server.server_port)) as one:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
        one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        one.recv(1000)
    began = time.perf_counter()
    status, lines = run(server, "next")
    assert status == 200 and lines[-2]["word"] == "next"
    assert time.perf_counter() - began < 5  # all of the slow text would take 10 s


def test_two_pages_take_turns(server):
    found = {}

    def page(name):
        found[name] = run(server, f"slow {name} {name} {name}")

    pages = [threading.Thread(target=page, args=(name,)) for name in "ab"]
    for one in pages:
        one.start()
    for one in pages:
        one.join()
    assert all(found[name][0] == 200 and "recording" in found[name][1][-1] for name in "ab")
    assert sorted("waiting" in found[name][1][0] for name in "ab") == [False, True]


def test_a_slow_client_holds_nobody_up(server, monkeypatch):
    monkeypatch.setattr(module.Handler, "timeout", 0.3)
    slow = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(8)]
    for one in slow:
        one.sendall(b"GET / HTT")
    assert ask(server)[0] == 200
    for one in slow:
        one.settimeout(5)
        assert one.recv(100) == b""  # hung up on
        one.close()


def test_more_connections_than_places_are_hung_up_on(server):
    many = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(80)]
    time.sleep(0.1)
    for one in many:
        one.close()
    assert MOST_AT_ONCE < 80 and ask_until_answered(server) == 200


def ask_until_answered(server):
    for _ in range(50):
        try:
            return ask(server)[0]
        except OSError:
            time.sleep(0.1)
    return None


def test_random_requests_are_refused(server):
    """A few hundred; MINILLM_FUZZ says how many."""
    draw, pieces = random.Random(0), [
        b"GET ", b"POST ", b"HEAD ", b"/", server.token.encode()[:5], b" HTTP/1.1\r\n", b"Host: ",
        b"\r\n", b"Content-Length: 9", b"..%2f", b"\0", b"\xff\xfe", b"A" * 500, b": ", b"\n",
        f"127.0.0.1:{server.server_port}".encode(), b"Transfer-Encoding: chunked", b"Origin: x",
    ]  # fmt: skip
    for _ in range(int(os.environ.get("MINILLM_FUZZ", "300"))):
        data = b"".join(draw.choice(pieces) for _ in range(draw.randrange(1, 12)))
        try:
            with socket.create_connection(("127.0.0.1", server.server_port), 5) as one:
                one.sendall(data + b"\r\n\r\n")
                one.shutdown(socket.SHUT_WR)
                reply = one.recv(4000)
        except OSError:  # hung up on
            continue
        assert b"the page" not in reply and server.token.encode() not in reply, data
        assert b"Traceback" not in reply and b"minillm/" not in reply, data
    assert ask_until_answered(server) == 200


def test_a_port_that_is_taken_is_said(server):
    with pytest.raises(InputError, match=f"port {server.server_port} cannot be had"):
        Server("", answer, server.server_port)
    with pytest.raises(InputError, match="port 99999 cannot be had"):
        Server("", answer, 99999)
