"""Backs an SQLite database up each night, while others go on using it, and keeps the last seven copies."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import structlog

from jobd import cron, current_run

DATABASE = Path(os.environ.get("DATABASE", "app.db"))
BACKUPS = Path(os.environ.get("BACKUPS", "backups"))
KEPT = 7
log = structlog.get_logger()


@cron(os.environ.get("BACKUP_AT", "30 3 * * *"), retries=3, backoff="1m")
def backup() -> None:
    """A plain function, so it may block: it has a thread of its own."""
    BACKUPS.mkdir(exist_ok=True)
    target = BACKUPS / f"{current_run().scheduled_at:%Y-%m-%dT%H%M%S}.db"
    partial = target.with_suffix(".partial")
    with closing(sqlite3.connect(DATABASE)) as source, closing(sqlite3.connect(partial)) as copy:
        source.backup(copy)
    partial.rename(target)  # a copy that is there is whole
    for old in sorted(BACKUPS.glob("*.db"))[:-KEPT]:
        old.unlink()
    log.info("backed up", file=str(target), bytes=target.stat().st_size)
