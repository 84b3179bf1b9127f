"""``collabench fetch``: a clone gets the results from a remote of params.yaml, over HTTP, and a mistake is one line."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from collabench.config.params import load_params
from collabench.config.remotes import RemoteConfig
from collabench.core.errors import CollabenchError, ConfigError
from collabench.core.git import git
from collabench.sharing.dvc_remote import _fetched_listing, silence_of
from collabench.sharing.fetch import address_of, lock_of, remote_of
from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT, collabench, copy_project, dvc
from tests.support.shared_study import PROFILE, train

PARAMS = """
  fabricated:
    description: a published study
    seeds: 2
    tables:
      - {name: t, datasets: [digits-tiny], noise: [uniform20], models: [resnet8], recipes: [smoke],
          methods: [individual, label-smoothing]}
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a web server serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield folder, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commands_of_the_page() -> list[list[str]]:
    """What docs/how-to/sharing.md tells those who want the results, for the profile :data:`PROFILE`."""
    page = (ROOT / "docs" / "how-to" / "sharing.md").read_text()
    (block,) = re.findall(r"^Who wants the results, in a clone:\n\n```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [line[0] for line in lines] == ["collabench"] * 3
    return [[PROFILE if word == "default" else word for word in line[1:]] for line in lines]


@pytest.mark.slow
def test_a_clone_gets_the_results_over_http(tmp_path, served):
    folder, address = served
    copy_project(first := tmp_path / "first", PARAMS)
    study = train(first)
    dvc(first, "remote", "modify", "--local", "local", "url", str(folder / "remote"))
    collabench(first, "share", "-p", PROFILE, "--part")
    shutil.copy(first / "dvc.lock", folder / "dvc.lock")
    remotes = f"remotes:\n  public: {{url: '{address}/remote', lock: '{address}/dvc.lock'}}\n"
    copy_project(clone := tmp_path / "clone", PARAMS + remotes)
    fetch, *further = commands_of_the_page()
    done = collabench(clone, *fetch, "--allow-versions")
    count = len(study.plan.runs)
    assert f"{count} runs imported, 0 already here; the study is complete" in done.stdout, done.stdout
    for path in (first / "artifacts" / PROFILE / "runs").glob("*/seed-*/*"):
        assert (clone / path.relative_to(first)).read_bytes() == path.read_bytes()
    for arguments in further:
        collabench(clone, *arguments)
    tables = [(place / "artifacts" / PROFILE / "report" / "t.csv").read_text() for place in (first, clone)]
    assert tables[0] == tables[1], "with the intervals over test images, which need the data sets"
    # one byte of one archive on the server
    shutil.rmtree(clone / "artifacts")
    damaged = max((folder / "remote").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(content)
    done = collabench(clone, "fetch", "public", "-p", PROFILE, "--allow-versions", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stdout, done.stdout
    assert not list((clone / "artifacts" / PROFILE / "runs").glob("*/seed-*"))


def test_a_lock_is_a_file_of_the_project_or_a_download(tmp_path, served):
    folder, address = served
    (folder / "their.lock").write_text("schema: '2.0'\n")
    with lock_of(RemoteConfig(url="x", lock=f"{address}/their.lock"), tmp_path) as path:
        assert path.read_text() == "schema: '2.0'\n"
    assert not path.exists()
    for lock, expected in ((None, "dvc.lock"), ("locks/their.lock", "locks/their.lock")):
        with lock_of(RemoteConfig(url="x", lock=lock), tmp_path) as path:
            assert path == tmp_path / expected
    with (
        pytest.raises(CollabenchError, match=r"none\.lock: HTTP 404"),
        lock_of(RemoteConfig(url="x", lock=f"{address}/none.lock"), tmp_path),
    ):
        pass
    assert address_of(RemoteConfig(url="folder"), tmp_path) == str(tmp_path / "folder")
    assert address_of(RemoteConfig(url="s3://bucket/x"), tmp_path) == "s3://bucket/x"


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_told_from_one_without_the_results(tmp_path):
    with socket.socket() as listener:  # nobody accepts there
        listener.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{listener.getsockname()[1]}/results"
        assert "refused" in (silence_of(away) or "")
        git(tmp_path, "init", "-q", "--template=", ".")
        dvc(tmp_path, "init", "-q")
        dvc(tmp_path, "remote", "add", "far", away)
        with pytest.raises(CollabenchError, match=r"^far: does not answer \(.*refused.*\); try again later$"):
            _fetched_listing(tmp_path, "far", "0" * 32 + ".dir", "far")
    assert silence_of(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("remotes", "name", "message"),
    [
        ("", None, "params.yaml: names no remote; add one: remotes: {public: {url: https://…}}"),
        ("{a: {url: x}, b: {url: y}}", None, "has several remotes; name one: a, b"),
        ("{public: {url: x}}", "pubic", "remotes has no 'pubic' (did you mean public?); it has public"),
        ("{public: {url: 'https://a b'}}", None, "remotes.public: url: 'https://a b' is no address"),
        ("{public: {url: x, lock: 's3://b/dvc.lock'}}", None, "must begin with https:// or http://, or be a path"),
        ("{public: {urll: x}}", None, "unknown key 'urll' (did you mean url?); keys that would be right: url, lock"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, remotes, name, message):
    text = params_yaml({"tiny": profile(table())}) + (f"remotes: {remotes}\n" if remotes else "")
    (path := tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        remote_of(load_params(path), name, path)
    assert message in str(error.value)


def test_the_only_remote_is_meant(tmp_path):
    (path := tmp_path / "params.yaml").write_text(
        params_yaml({"tiny": profile(table())}) + "remotes: {public: {url: x}}\n"
    )
    assert remote_of(load_params(path), None, path) == remote_of(load_params(path), "public", path)
