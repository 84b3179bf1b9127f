"""A job server: a process that has imported everything forks itself for each job, so that jobs start in milliseconds.

:func:`serve` forks the server, which listens on a socket. :func:`ask` runs in the process that was started for a job
(the client). It sends its arguments, environment variables, and standard input, output and error to the server,
forwards signals, and waits for the exit code. Each job runs in its own fork, so that a crash ends no other job. A job
is killed when its client, the server, or the process that started the server ends.

Before the first job of a module the server imports the module and calls its ``prepare()``, if it has one. So what all
jobs of the module need (libraries, parsed files) is loaded once, and every fork finds it.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from collabench.core import flock
from collabench.core.processes import end_with_parent, kill_with_parent

#: Environment variable with the path of the server's socket.
SERVER = "COLLABENCH_SERVER"

#: Prefixes of environment variables that libraries read when they are imported. The server refuses a job in which such
#: a variable has another value than in the server. Snakemake sets several variables that end in ``_NUM_THREADS``; only
#: OMP_NUM_THREADS is compared.
_AT_IMPORT = ("ATEN_", "COLLABENCH_ARITHMETIC", "CUDA_", "KMP_", "MKL_", "NUMBA_", "OMP_", "ONEDNN_", "PYTHON", "TORCH")

#: The server's answer to a job that it refuses.
_REFUSED = -1

_LONGEST_REQUEST = 1_000_000
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


@dataclass
class _Job:
    """A job of the server: the connection to its client, and its process once it has been started."""

    connection: socket.socket
    pid: int = 0
    pidfd: int = -1


def serve() -> Path | None:
    """Fork a server from this process, set $COLLABENCH_SERVER to its socket, and return the socket's path.

    Returns None, without a server, if the operating system does not support it or if a server exists already. Call
    this before the process starts threads, because a fork copies only the calling thread.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open") or SERVER in os.environ:
        return None
    folder = Path(tempfile.mkdtemp(prefix="collabench-of-jobs-"))
    path = folder / "jobs"
    lock = os.open(folder, os.O_RDONLY)  # the server holds this lock, which shows that its folder is in use
    listener = socket.socket(socket.AF_UNIX)
    try:
        flock.lock(lock)
        listener.bind(str(path))
    except OSError:  # the path is too long for a socket, or the file system has no locks
        os.close(lock)
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)
        return None
    listener.listen(64)
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        try:
            kill_with_parent(parent)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal: the clients forward it to their jobs
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _Server(listener).run()
        finally:
            os._exit(1)
    listener.close()
    os.close(lock)
    os.environ[SERVER] = str(path)
    return path


def dismiss(path: Path | None) -> None:
    """Remove the environment variable and the folder of :func:`serve`. The server itself ends with this process."""
    if path is not None:
        os.environ.pop(SERVER, None)
        shutil.rmtree(path.parent, ignore_errors=True)


def ask(module: str, arguments: Sequence[str]) -> int | None:
    """Let the server run ``module.main(arguments)`` and return the exit code.

    Returns None if there is no server or it refuses the job. The caller then runs the job itself.
    """
    address = os.environ.get(SERVER)
    if not address:
        return None
    request = {
        "module": module,
        "arguments": list(arguments),
        "path": sys.path,
        "environment": dict(os.environ),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            body = json.dumps(request).encode()
            connection.sendall(len(body).to_bytes(8))
            socket.send_fds(connection, [body[:1]], [0, 1, 2])
            connection.sendall(body[1:])
        except OSError:  # the server has ended, or runs on another machine
            return None
        for number in _PASSED_ON:
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        answer = _received(connection, 4)
    for number in _PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    if len(answer) < 4:
        print("the job server ended while this job ran", file=sys.stderr)
        return 1
    code = int.from_bytes(answer, signed=True)
    return None if code == _REFUSED else code


def _received(connection: socket.socket, count: int) -> bytes:
    """Receive ``count`` bytes, or fewer if the other side closes the connection."""
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            break
        found += part
    return found


class _Server:
    """The server: forks a process for each request, and watches these processes and their clients."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener, self._selector = listener, selectors.DefaultSelector()
        self._environment = _taking_effect_at_import(os.environ)
        self._prepared: set[str] = set()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def run(self) -> NoReturn:
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self) -> None:
        job = _Job(self._listener.accept()[0])
        try:
            size = int.from_bytes(_received(job.connection, 8))
            first, files, _, _ = socket.recv_fds(job.connection, 1, 3)
            request = json.loads(first + _received(job.connection, min(size, _LONGEST_REQUEST) - 1))
        except (OSError, ValueError):  # the client has ended meanwhile
            job.connection.close()
            return
        if _taking_effect_at_import(request["environment"]) != self._environment:
            self._answer(job, _REFUSED)
        else:
            self._start(job, request, files)
        for file in files:
            os.close(file)

    def _start(self, job: _Job, request: dict[str, Any], files: list[int]) -> None:
        self._prepare(request["module"], request["path"])
        server = os.getpid()
        job.pid = os.fork()
        if job.pid == 0:
            try:
                kill_with_parent(server)
                self._become(request, files)
            finally:
                os._exit(1)
        job.pidfd = os.pidfd_open(job.pid)
        self._selector.register(job.pidfd, selectors.EVENT_READ, lambda: self._ended(job))
        self._selector.register(job.connection, selectors.EVENT_READ, lambda: self._heard(job))

    def _prepare(self, module: str, path: list[str]) -> None:
        """Load, once, what all jobs of a module need. A job meets a failure again and reports it."""
        if module in self._prepared:
            return
        self._prepared.add(module)
        own = sys.path[:]
        sys.path[:] = path
        with suppress(Exception):
            getattr(import_module(module), "prepare", lambda: None)()
            gc.freeze()  # or the first collection in every fork would copy the memory of all modules
        sys.path[:] = own

    def _become(self, request: dict[str, Any], files: list[int]) -> NoReturn:
        """In the forked process: take over the client's files, environment and module path, run its job, and exit."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fd)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.path[:] = request["path"]
        end_with_parent()
        code = _exit_code(lambda: import_module(request["module"]).main(request["arguments"]))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _heard(self, job: _Job) -> None:
        """Forward a signal from the client to its job. If the client has ended, kill the job."""
        try:
            heard = job.connection.recv(1)
        except OSError:
            heard = b""
        signal.pidfd_send_signal(job.pidfd, signal.Signals(heard[0]) if heard else signal.SIGKILL)
        if not heard:
            self._selector.unregister(job.connection)

    def _ended(self, job: _Job) -> None:
        _, status = os.waitpid(job.pid, 0)
        self._selector.unregister(job.pidfd)
        os.close(job.pidfd)
        if job.connection in {key.fileobj for key in self._selector.get_map().values()}:
            self._selector.unregister(job.connection)
        self._answer(job, os.waitstatus_to_exitcode(status) % 256)

    @staticmethod
    def _answer(job: _Job, code: int) -> None:
        with suppress(OSError):  # the client has ended
            job.connection.sendall(code.to_bytes(4, signed=True))
        job.connection.close()


def _taking_effect_at_import(environment: Any) -> dict[str, str]:
    ours = ((name, value) for name, value in environment.items() if name.startswith(_AT_IMPORT))
    return {name: value for name, value in ours if not name.endswith("_NUM_THREADS") or name == "OMP_NUM_THREADS"}


def _exit_code(run: Callable[[], object]) -> int:
    """Call ``run`` and return the exit code that Python would end with; print a traceback to standard error."""
    import traceback

    try:
        code = run()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1
