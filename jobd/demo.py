"""The built-in demo job: sleeps for a random time, 5 to 15 seconds unless set otherwise.

May import: settings.
"""

import asyncio
import random

from jobd import settings


async def run_job() -> None:
    """Sleep for a random time between JOBD_DEMO_MIN and JOBD_DEMO_MAX."""
    await asyncio.sleep(random.uniform(settings.in_use.demo_min, settings.in_use.demo_max))
