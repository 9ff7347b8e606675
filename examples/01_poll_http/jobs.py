"""Polls an HTTP API with one client, which is opened before the first run and closed after the last."""

import os
from collections.abc import AsyncIterator

import httpx
import structlog

from jobd import every, lifespan

URL = os.environ.get("STATUS_URL", "http://127.0.0.1:8000/status.json")
log = structlog.get_logger()
client: httpx.AsyncClient


@lifespan
async def shared() -> AsyncIterator[None]:
    """Connections are kept from run to run."""
    global client
    async with httpx.AsyncClient(timeout=5) as client:
        yield


@every("2s", timeout="10s", overlap="skip")
async def poll() -> None:
    """A slow answer delays nobody: the ticks meanwhile are skipped, and said to be."""
    answer = await client.get(URL)
    answer.raise_for_status()
    log.info("status", **answer.json())
