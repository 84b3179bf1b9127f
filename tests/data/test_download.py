"""Downloads, against an HTTP server on loopback that misbehaves as it is told."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from collabench.core.errors import DataError
from collabench.data import download
from collabench.data.download import Official, obtain

CONTENT = bytes(range(256)) * 4000
NAME = "images.tar.gz"


class Server:
    """Serves CONTENT below any path. plan: what to do with the next requests, then ``ok``."""

    def __init__(self) -> None:
        self.plan: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.requests.append((self.path, wanted))
                plan = server.plan.get(self.path.split("/")[1], [])
                server.answer(self, plan.pop(0) if plan else "ok", wanted)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, place: str = "official") -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{place}/{NAME}"

    @staticmethod
    def answer(handler: BaseHTTPRequestHandler, what: str, wanted: str | None) -> None:
        if what.isdigit():
            handler.send_error(int(what))
            return
        content = {"wrong": CONTENT[::-1], "short": CONTENT[:1000]}.get(what, CONTENT)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and what != "no-range" else 0
        if begin >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if begin else 200)
        if begin:
            first = begin + 1 if what == "shifted" else begin
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - begin))
        handler.end_headers()
        rest = content[begin:]
        handler.wfile.write(rest[: len(rest) // 2] if what in ("drop", "stall") else rest)
        if what == "stall":
            time.sleep(1)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def official(server: Server) -> Official:
    return Official(server.url(), "sha256:" + hashlib.sha256(CONTENT).hexdigest())


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_plain_download_and_no_second_one(server, official, tmp_path):
    path = obtain(official, tmp_path, None, (), print)
    assert path.read_bytes() == CONTENT and left(tmp_path) == {NAME}
    assert obtain(official, tmp_path, None, (), print) == path
    assert len(server.requests) == 1


def test_dropped_connection_is_taken_up_where_it_broke_off(server, official, tmp_path):
    server.plan["official"] = ["drop", "drop", "503"]
    lines: list[str] = []
    assert obtain(official, tmp_path, None, (), lines.append).read_bytes() == CONTENT
    half, most = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    assert [wanted for _, wanted in server.requests] == [None, f"bytes={half}-", f"bytes={most}-", f"bytes={most}-"]
    assert any("the connection dropped after" in line for line in lines)
    assert left(tmp_path) == {NAME}


def test_what_arrived_before_a_connection_stalls_is_kept(server, official, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.3)
    server.plan["official"] = ["stall"]
    assert obtain(official, tmp_path, None, (), print).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_part_left_by_an_earlier_attempt_is_used(server, official, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:777])
    assert obtain(official, tmp_path, None, (), print).read_bytes() == CONTENT
    assert server.requests == [(f"/official/{NAME}", "bytes=777-")]


def test_a_part_that_is_already_whole(server, official, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert obtain(official, tmp_path, None, (), print).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"x" * 777, CONTENT + b"more"])
def test_a_part_of_something_else_is_dropped(server, official, tmp_path, part):
    (tmp_path / f"{NAME}.part").write_bytes(part)
    assert obtain(official, tmp_path, None, (), print).read_bytes() == CONTENT
    assert left(tmp_path) == {NAME}


def test_a_server_without_ranges_begins_again(server, official, tmp_path):
    server.plan["official"] = ["drop", "no-range"]
    assert obtain(official, tmp_path, None, (), print).read_bytes() == CONTENT


def test_a_server_that_answers_another_range_is_not_believed(server, official, tmp_path):
    server.plan["official"] = ["drop", "shifted"]
    with pytest.raises(DataError, match="another range than was asked for"):
        obtain(official, tmp_path, None, (), print)
    assert left(tmp_path) == {f"{NAME}.part"}


@pytest.mark.parametrize(
    ("fault", "message"), [("wrong", "wrong content"), ("short", "wrong content"), ("404", "HTTP 404")]
)
def test_wrong_content_is_named_and_never_used(server, official, tmp_path, fault, message):
    server.plan["official"] = [fault]
    with pytest.raises(DataError, match=message) as raised:
        obtain(official, tmp_path, None, (), print)
    assert official.url in str(raised.value) and "\n" not in str(raised.value)
    assert left(tmp_path) == set() and len(server.requests) == 1


def test_attempts_end(server, official, tmp_path):
    server.plan["official"] = ["503"] * 50
    with pytest.raises(DataError, match="HTTP 503"):
        obtain(official, tmp_path, None, (), print)
    assert len(server.requests) == download.ATTEMPTS


def test_mirrors_come_after_the_official_address_in_their_order(server, official, tmp_path):
    server.plan = {"official": ["404"], "first": ["wrong"], "second": ["ok"]}
    mirrors = (server.url("first").removesuffix(f"/{NAME}"), server.url("second"), server.url("third"))
    assert obtain(official, tmp_path, None, mirrors, print).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [f"/{place}/{NAME}" for place in ("official", "first", "second")]


@pytest.mark.parametrize("mirror", ["http://[broken", "http://two words/"])
def test_a_mirror_that_is_no_address_is_named_at_once(server, official, tmp_path, mirror):
    server.plan = {"official": ["404"]}
    lines: list[str] = []
    path = obtain(official, tmp_path, None, (mirror, server.url("second")), lines.append)
    assert path.read_bytes() == CONTENT
    assert sum("not an address" in line for line in lines) == 1 and len(lines) == 2


def test_local_copies_come_first(server, official, tmp_path):
    downloads, mirror = tmp_path / "downloads", tmp_path / "mirror"
    mirror.mkdir()
    (mirror / NAME).write_bytes(CONTENT)
    assert obtain(official, downloads, mirror, (), print) == mirror / NAME
    assert obtain(official, downloads, mirror / NAME, (), print) == mirror / NAME
    downloads.mkdir(exist_ok=True)
    (downloads / NAME).write_bytes(CONTENT)
    assert obtain(official, downloads, None, (), print) == downloads / NAME
    assert server.requests == []
    with pytest.raises(DataError, match="nowhere does not exist"):
        obtain(official, downloads, tmp_path / "nowhere", (), print)


def test_damaged_local_copies_are_named_and_not_used(server, official, tmp_path):
    downloads, mirror = tmp_path / "downloads", tmp_path / "mirror"
    for folder in (downloads, mirror):
        folder.mkdir()
        (folder / NAME).write_bytes(CONTENT[:-1])
    lines: list[str] = []
    path = obtain(official, downloads, mirror, (), lines.append)
    assert path == downloads / NAME and path.read_bytes() == CONTENT
    assert (mirror / NAME).read_bytes() == CONTENT[:-1]  # the user's own file is left as it is
    assert [line for line in lines if str(mirror / NAME) in line and "damaged" in line]
    assert [line for line in lines if str(downloads / NAME) in line and "damaged" in line]


def test_no_server_at_all(server, official, tmp_path, monkeypatch):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(DataError, match=r"images\.tar\.gz cannot be had: .*Place the file in"):
        obtain(official, tmp_path, None, (), print)
