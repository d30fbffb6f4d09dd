"""What is taken for the head of a request, and what is refused."""

from __future__ import annotations

import pytest

from lib.api import http_head
from lib.api.exchange import Refusal

GOOD = b"GET /a%2Fb%20c?x=1&y=%zz HTTP/1.1\r\nHost: localhost\r\nX-One:  a b\t\r\n\r\n"


def refused(data: bytes) -> int:
    """The status with which the head in `data` is refused; 0 if it is not."""
    try:
        end = http_head.find_end(data, 0)
        if end:
            http_head.parse(data[:end])
    except Refusal as refusal:
        return refusal.status
    return 0


def refused_from(data: bytes, checked: int) -> int:
    """The same, for one whose first bytes have been seen."""
    try:
        http_head.find_end(data, checked)
    except Refusal as refusal:
        return refusal.status
    return 0


def with_lines(*lines: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")


def test_a_head_is_taken_apart() -> None:
    head = http_head.parse(GOOD)

    assert (head.method, head.path, head.query) == ("GET", "/a/b c", "x=1&y=%zz")
    assert head.target == "/a%2Fb%20c?x=1&y=%zz"
    assert head.version == "HTTP/1.1"
    assert head.headers == {"host": "localhost", "x-one": "a b"}
    assert head.body_bytes == 0


def test_the_path_is_decoded_once_and_keeps_bytes_that_are_no_text() -> None:
    head = http_head.parse(b"GET /%252e%ff HTTP/1.0\r\n\r\n")

    assert head.path == "/%2e\xff"


def test_the_end_is_found_wherever_the_pieces_of_a_head_are_cut() -> None:
    for cut in range(len(GOOD)):
        assert http_head.find_end(GOOD[:cut], 0) == 0, cut
        assert http_head.find_end(GOOD + b"\x00body\n", cut) == len(GOOD), cut


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("GET / HTTP/1.1", 0),
        ("OPTIONS * HTTP/1.1", 0),
        ("M-SEARCH / HTTP/1.0", 0),
        ("GET /", 400),
        ("GET  / HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET / x HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.10", 400),
        ("PRI * HTTP/2.0", 505),
        ("GET / HTTP/0.9", 505),
        ("GET x HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET http://x/ HTTP/1.1", 400),
        ("CONNECT x:80 HTTP/1.1", 400),
        ("GET /#x HTTP/1.1", 400),
        ("GET /\xe9 HTTP/1.1", 400),
        ("GET /%4 HTTP/1.1", 400),
        ("GET /%zz HTTP/1.1", 400),
        ("G(T / HTTP/1.1", 400),
        ("", 400),
    ],
)
def test_a_request_line_is_as_the_standard_has_it(first: str, expected: int) -> None:
    assert refused(f"{first}\r\nHost: x\r\n\r\n".encode("latin-1")) == expected


@pytest.mark.parametrize(
    "line",
    [
        "X : 1",
        "X",
        ": 1",
        " folded",
        "\tfolded",
        "X Y: 1",
        "Xé: 1",
        "Host: y",
        "host: x",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 1,1",
        "Content-Length: 0x1",
        "Content-Length: ",
        "Content-Length: 1 1",
        "Content-Length: ²",
        "Content-Length: 1e3",
        "Content-Length: 9999999999999999999",
        "Content-Length: 1_0",
    ],
)
def test_a_malformed_header_is_refused(line: str) -> None:
    assert refused(with_lines(line)) == 400


@pytest.mark.parametrize("name", sorted(http_head._ONCE))
def test_what_counts_once_may_not_stand_twice(name: str) -> None:
    assert refused(with_lines(f"{name}: 1", f"{name.upper()}: 1")) in (400, 417)


def test_two_lengths_are_refused_even_when_they_agree() -> None:
    assert refused(with_lines("Content-Length: 5", "Content-Length: 5")) == 400


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Transfer-Encoding: chunked"], 411),
        (["transfer-encoding: identity"], 411),
        (["Transfer-Encoding: xchunked"], 411),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], 400),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding : chunked"], 400),
        (["Transfer-Encoding: a", "Transfer-Encoding: chunked"], 400),
        (["Expect: 100-Continue"], 0),
        (["Expect: 200-ok"], 417),
    ],
)
def test_a_body_has_one_length_and_no_other_way_to_end(lines: list[str], expected: int) -> None:
    assert refused(with_lines(*lines)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",  # a greeting in TLS
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\rHost: x",
        b"GET / HTTP/1.1\r\r\n",
        b"GET /\x00 HTTP/1.1",
        b"GET / HTTP/1.1\r\nX: a\x00b",
        b"GET / HTTP/1.1\r\nX: a\x1bb",
        b"GET / HTTP/1.1\r\nX: a\x7fb",
        b"GET / HTTP/1.1\r\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nX: a\r b\r\n",
    ],
)
def test_a_stray_byte_is_refused_before_the_head_has_ended(data: bytes) -> None:
    assert refused(data) == 400
    for cut in range(1, len(data)):  # in whatever pieces it came
        assert refused(data[:cut]) == 400 or refused_from(data, cut) == 400, cut


def test_a_head_has_a_host_but_for_the_oldest_clients() -> None:
    assert refused(b"GET / HTTP/1.1\r\n\r\n") == 400
    assert refused(b"GET / HTTP/1.0\r\n\r\n") == 0


def test_a_long_address_is_refused_whether_it_ends_or_not() -> None:
    assert refused(b"GET /" + b"a" * 8191 + b" HTTP/1.1\r\nHost: x\r\n\r\n") == 0
    assert refused(b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: x\r\n\r\n") == 414
    assert refused(b"GET /" + b"a" * 9000) == 414


def test_too_many_headers_are_refused_whether_they_end_or_not() -> None:
    assert refused(with_lines(*["X: 1"] * 99)) == 0
    assert refused(with_lines(*["X: 1"] * 100)) == 431
    assert refused(b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 1000) == 431


def test_long_headers_are_refused_whether_they_end_or_not() -> None:
    assert refused(with_lines("X: " + "a" * 32000)) == 0
    assert refused(with_lines("X: " + "a" * 33000)) == 431
    assert refused(with_lines() + b"a" * 99999) == 0  # the body is another matter
    assert refused(b"GET / HTTP/1.1\r\nX: " + b" " * 33000) == 431


def test_repeated_headers_become_one_list() -> None:
    head = http_head.parse(with_lines("A: 1", "a: 2", "Cookie: b=1", "Cookie: c=2"))

    assert head.headers == {"host": "x", "a": "1, 2", "cookie": "b=1; c=2"}


def test_a_header_that_would_pass_for_another_is_left_out() -> None:
    assert http_head.parse(with_lines("X_API_Key: 1")).headers == {"host": "x"}
