"""The remotes of ``params.yaml``: which one is meant, and the ``dvc.lock`` that says what it holds."""

from __future__ import annotations

import difflib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collabench.config.params import Params
from collabench.config.remotes import RemoteConfig
from collabench.core.errors import CollabenchError, ConfigError
from collabench.storage.temporary import temporary_folder

TIMEOUT_SECONDS = 30.0
#: A lock of thousands of stages has less than a megabyte.
MAX_LOCK_BYTES = 20_000_000


def remote_of(params: Params, name: str | None, path: Path) -> RemoteConfig:
    """The remote of this name, or the only one. path: of ``params.yaml``. Raises ConfigError (one line)."""
    known = params.remotes
    if not known:
        raise ConfigError(f"{path}: names no remote; add one: remotes: {{public: {{url: https://…}}}}")
    if name is None and len(known) > 1:
        raise ConfigError(f"{path}: has several remotes; name one: {', '.join(known)}")
    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise ConfigError(f"{path}: remotes has no {name!r}{hint}; it has {', '.join(known)}")
    return known[name if name is not None else next(iter(known))]


def address_of(remote: RemoteConfig, root: Path) -> str:
    """The remote's address, or its folder as an absolute path."""
    return remote.url if "://" in remote.url else str((root / remote.url).resolve())


@contextmanager
def lock_of(remote: RemoteConfig, root: Path) -> Iterator[Path]:
    """The remote's ``dvc.lock``: a file of the project, or a download that is removed when the block ends.

    Raises CollabenchError (one line) if it cannot be had.
    """
    if remote.lock is None or "://" not in remote.lock:
        yield root / (remote.lock or "dvc.lock")
        return
    with temporary_folder("lock") as folder:
        path = folder / "dvc.lock"
        path.write_bytes(_download(remote.lock))
        yield path


def _download(url: str) -> bytes:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "collabench"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            content: bytes = response.read(MAX_LOCK_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise CollabenchError(f"{url}: HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CollabenchError(f"{url}: cannot be read ({getattr(error, 'reason', None) or error})") from None
    if len(content) > MAX_LOCK_BYTES:
        raise CollabenchError(f"{url}: has more than {MAX_LOCK_BYTES:,} bytes, which no dvc.lock has")
    return content
