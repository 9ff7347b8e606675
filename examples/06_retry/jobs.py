"""Tries again when the other side fails: after a second, two, four, and so on, a little less by chance each time."""

import os
from pathlib import Path

import structlog

from jobd import every

INBOX = Path(os.environ.get("INBOX", "inbox.txt"))
log = structlog.get_logger()


@every("1m", retries=5, backoff=os.environ.get("BACKOFF", "1s"), backoff_max="30s", timeout="10s")
def fetch() -> None:
    """What it waits for is not always there; a run that succeeds in the end has succeeded."""
    text = INBOX.read_text()  # FileNotFoundError: another attempt
    log.info("fetched", characters=len(text))
