"""Works through a long list, and saves how far it has come when the daemon stops; the next start goes on from there."""

import json
import os
from pathlib import Path

import structlog

from jobd import current_run, every

CHECKPOINT = Path(os.environ.get("CHECKPOINT", "checkpoint.json"))
ITEMS = 1000
log = structlog.get_logger()


@every("1h", overlap="skip")
def work() -> None:
    """One item takes a moment; `stopping.wait` is a sleep that a stop cuts short."""
    done = json.loads(CHECKPOINT.read_text())["done"] if CHECKPOINT.exists() else 0
    log.info("going on", done=done)
    stopping = current_run().stopping
    while done < ITEMS and not stopping.wait(0.05):
        done += 1
    partial = CHECKPOINT.with_suffix(".partial")
    partial.write_text(json.dumps({"done": done}))
    partial.rename(CHECKPOINT)
    log.info("saved", done=done)
