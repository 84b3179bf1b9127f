"""Real servers on the loopback interface for as long as a block runs: S3 (moto's server) and SSH (asyncssh with
SFTP)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Settings of a DVC remote: ``url`` and what else `dvc remote modify` takes.
Remote = dict[str, str]

BUCKET = "collabench"


#: Kind of remote → the packages that it needs beyond DVC.
NEEDED = {"local": (), "s3": ("dvc_s3", "moto", "flask", "boto3"), "ssh": ("dvc_ssh", "asyncssh")}


@contextmanager
def remote_of(kind: str, folder: Path) -> Iterator[Remote]:
    """A remote of a kind of :data:`NEEDED`, empty, for as long as the block runs. folder: for its files."""
    if kind == "s3":
        with s3_server() as remote:
            yield remote
    elif kind == "ssh":
        with ssh_server(folder) as remote:
            yield remote
    else:
        yield {"url": str(folder / "remote")}


@contextmanager
def s3_server() -> Iterator[Remote]:
    """An S3 server with an empty bucket; what it stores is in memory."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it logs every request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        access = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
        endpoint = f"http://{host}:{port}"
        boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=access["access_key_id"],
            aws_secret_access_key=access["secret_access_key"],
            region_name=access["region"],
        ).create_bucket(Bucket=BUCKET)
        yield {"url": f"s3://{BUCKET}/study", "endpointurl": endpoint, **access}
    finally:
        server.stop()


@contextmanager
def ssh_server(folder: Path) -> Iterator[Remote]:
    """An SSH server that gives SFTP access to ``folder / "served"`` to the holder of one key, made for it."""
    import asyncssh

    served = folder / "served"
    (served / "study").mkdir(parents=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    key_file, authorized = folder / "key", folder / "authorized_keys"
    key.write_private_key(str(key_file))
    key.write_public_key(str(authorized))
    key_file.chmod(0o600)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                "127.0.0.1",
                0,
                server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
                authorized_client_keys=str(authorized),
                sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(served)),
            )

        server = asyncio.run_coroutine_threadsafe(listen(), loop).result(timeout=30)
        try:
            yield {
                "url": "ssh://127.0.0.1/study",
                "port": str(server.get_port()),
                "user": "reader",
                "keyfile": str(key_file),
                "allow_agent": "false",
            }
        finally:
            loop.call_soon_threadsafe(server.close)
            asyncio.run_coroutine_threadsafe(server.wait_closed(), loop).result(timeout=30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)
        loop.close()
