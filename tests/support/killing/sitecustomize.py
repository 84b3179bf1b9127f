"""On the path of a study's processes this ends one of them in the middle of writing a file; see ``kills.py``.

COLLABENCH_TEST_KILL_WRITE holds JSON: name, a part of the file's name; after, how many such writes are let through;
point: ``half`` (the temporary file holds half of its content), ``before`` or ``after`` it takes its place; all: the
whole group of processes dies, as in a power cut, not only the one that writes; count: a file that counts the writes of
all processes.
"""

import json
import os
import signal


def arm(plan: dict) -> None:
    fsync, replace = os.fsync, os.replace

    def is_the_one(path: str) -> bool:
        folder, name = os.path.split(path)
        if plan["name"] not in name or not folder.endswith(".tmp"):
            return False
        handle = os.open(plan["count"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(handle, b".")
        count = os.fstat(handle).st_size
        os.close(handle)
        return count == plan["after"] + 1

    def die() -> None:
        if plan["all"]:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    def killing_fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if plan["point"] == "half" and is_the_one(path):
            os.truncate(path, os.path.getsize(path) // 2)
            die()
        fsync(handle)

    def killing_replace(source, target, **options) -> None:
        hit = plan["point"] != "half" and is_the_one(str(source))
        if hit and plan["point"] == "before":
            die()
        replace(source, target, **options)
        if hit:
            die()

    os.fsync, os.replace = killing_fsync, killing_replace


if "COLLABENCH_TEST_KILL_WRITE" in os.environ:
    arm(json.loads(os.environ["COLLABENCH_TEST_KILL_WRITE"]))
