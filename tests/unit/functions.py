"""Functions that are called in a process of their own. Little is imported here, because each process does it anew."""

import itertools
import os
import sys
import threading
import time
from typing import Any

from jobd import current_run

#: Nothing that they wait for takes this long.
LIMIT_S = 20.0


def works() -> None:
    print("printed", sys.stdin.read())


def raises() -> None:
    raise ValueError("no")


def logs() -> None:
    import logging

    import structlog

    structlog.get_logger().info("structured", n=1)
    logging.getLogger("library").warning("plain %s", "text")
    structlog.get_logger().debug("not told")
    thread = threading.Thread(target=lambda: structlog.get_logger().info("from a thread"))
    thread.start()


def tells_its_run() -> None:
    r = current_run()
    print(r.job, r.run_id, r.tick, r.scheduled, r.attempt, r.stopping.is_set(), os.environ["JOBD_RUN_ID"] == r.run_id)


def waits_for_the_stop() -> None:
    print("ready", flush=True)
    print("stopping", current_run().stopping.wait(LIMIT_S))


def cleans_up() -> None:
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", current_run().stopping.is_set())


def logs_and_cleans_up() -> None:
    import structlog

    log = structlog.get_logger()
    try:
        print("ready", flush=True)
        while True:
            log.info("said", nested={"a": [1, 2]})
    finally:
        print("cleaned up")


def holds_the_gil() -> None:
    print("ready", flush=True)
    assert -1 in itertools.count()


def aborts() -> None:
    os.abort()


def leaves() -> None:
    os._exit(7)


def exits() -> None:
    sys.exit(0)


def forks() -> None:
    if os.fork():
        os.wait()
        raise ValueError("the parent's")


async def awaitable() -> None: ...


def returns_an_awaitable() -> Any:
    return awaitable()


def leaves_a_thread() -> None:
    sys.modules["__main__"].LEAVE_S = 0.2  # type: ignore[attr-defined]
    threading.Thread(target=time.sleep, args=(60,)).start()
