"""Every weekday at half past eight in Berlin: what that is in UTC changes with the season, and is not your concern."""

import structlog

from jobd import cron, current_run

log = structlog.get_logger()


@cron("30 8 * * mon-fri", timezone="Europe/Berlin", missed="once", jitter="10s")
async def good_morning() -> None:
    """A laptop that sleeps at that time says it once it wakes up."""
    log.info("good morning", scheduled_at=str(current_run().scheduled_at))
