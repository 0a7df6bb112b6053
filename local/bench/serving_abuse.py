"""Bad clients of all kinds at once for serving.py, with good ones among them, and what they leave of the server."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving_bad_clients import BadClients, RefusedError, connected, send
from serving_clients import Server, Talk, converse

from asrkd.errors import InputError

PAUSE_SEC = 0.1
"""Of a bad client between two connections."""
INTERVAL_SEC = 5.0
"""Between two samples of the memory."""
WARM_UP_SHARE, MOST_WARM_UP_SEC = 0.25, 60.0
"""Memory that is taken once is taken by then."""
RECOVERY_SEC = 60.0
"""In which all bad connections are gone: twice the server's --idle-timeout."""
RETRY_SEC = 1.0


class Settings(Protocol):
    """The options that count here."""

    minutes: float
    connections: int
    talkers: int


@dataclass(frozen=True)
class Sample:
    """What the server holds at a time."""

    at_sec: float
    rss_mb: float
    num_files: int
    by_process: tuple[float, ...]
    """MB of the server's own process, then of each worker."""


@dataclass
class Abuse:
    """What happened."""

    num_clients: dict[str, int]
    answers: dict[str, Counter[str]]
    """By client: what the server answered, and how often."""
    talks: Counter[str] = field(default_factory=Counter)
    """Good clients: right, wrong, dropped, asked to try later."""
    samples: list[Sample] = field(default_factory=list)
    warm_up_sec: float = 0.0
    client_cores: float = 0.0
    server_cores: float = 0.0
    afterwards: str = ""
    has_recovered: bool = False
    files_before: int = 0
    files_afterwards: int = 0

    @property
    def settled(self) -> list[Sample]:
        """After the warm-up."""
        return [one for one in self.samples if one.at_sec >= self.warm_up_sec]


# Of two hundred. Streams leave room for the good ones: with them they are fewer than the server's --max-streams.
SHARES = {
    "silent": 60,
    "half_a_head": 34,
    "a_byte_a_second": 20,
    "garbage": 20,
    "half_a_body_for_nobody": 14,
    "garbage_in_a_stream": 10,
    "half_an_upload": 8,
    "a_stream_that_reads_nothing": 8,
    "a_half_open_stream": 6,
    "a_stream_that_vanishes": 4,
    "pages_that_nobody_reads": 4,
    "bad_files": 3,
    "an_upload_of_1_gb": 2,
    "an_upload_of_1_gb_in_chunks": 2,
    "a_message_of_1_gb": 2,
    "burst_of_requests": 1,
    "burst_of_streams": 1,
}


async def mistreat(server: Server, talks: Sequence[Talk], expected: Mapping[str, str], options: Settings) -> Abuse:
    """All bad clients for so many minutes, with good ones among them."""
    share = options.connections / sum(SHARES.values())
    found = Abuse({kind: max(1, round(share * number)) for kind, number in SHARES.items()}, {})
    found.answers = {_name(kind): Counter() for kind in SHARES}
    duration = 60.0 * options.minutes
    found.warm_up_sec = min(WARM_UP_SHARE * duration, MOST_WARM_UP_SEC)
    await converse(server.port, talks[0])  # what is loaded once
    before, begin, client = server.usage(), time.monotonic(), time.process_time()
    found.files_before = before.num_files
    bad = BadClients(server.port, talks)
    tasks = [
        asyncio.create_task(_again(getattr(bad, kind), found.answers[_name(kind)]))
        for kind, number in found.num_clients.items()
        for _ in range(number)
    ]
    good = [
        asyncio.create_task(
            _talk(server.port, talks[number :: options.talkers], expected, found.talks, begin + duration)
        )
        for number in range(options.talkers)
    ]
    while time.monotonic() < begin + duration and server.is_running:
        found.samples.append(_sample(server, begin))
        await asyncio.sleep(INTERVAL_SEC)
    seconds = time.monotonic() - begin
    if not server.is_running:
        raise InputError(f"asrkd serve ended after {seconds:.0f} s: {' '.join(server.log[-3:])}")
    after = server.usage()
    found.client_cores = (time.process_time() - client) / seconds
    found.server_cores = (after.cpu_sec - before.cpu_sec) / seconds
    await asyncio.gather(*good)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    found.num_clients = {_name(kind): number for kind, number in found.num_clients.items()}
    await _recover(server, talks[0], expected, found)
    return found


def _name(kind: str) -> str:
    return kind.replace("_", " ")


def _sample(server: Server, begin: float) -> Sample:
    usage = server.usage()
    return Sample(time.monotonic() - begin, usage.rss_mb, usage.num_files, usage.by_process)


async def _again(attempt: Callable[[], Awaitable[str]], answers: Counter[str]) -> None:
    while True:
        try:
            answers[await attempt()] += 1
        except RefusedError as error:
            answers[str(error)] += 1
        except (BrokenPipeError, ConnectionResetError):
            answers["disconnected"] += 1
        except ConnectionRefusedError:
            answers["no server"] += 1
        except asyncio.CancelledError:
            answers["open at the end"] += 1
            raise
        await asyncio.sleep(PAUSE_SEC)


async def _talk(
    port: int, talks: Sequence[Talk], expected: Mapping[str, str], outcomes: Counter[str], end: float
) -> None:
    """One utterance after the other, in real time."""
    for talk in itertools.cycle(talks):
        if time.monotonic() > end:
            return
        heard = await converse(port, talk)
        if heard.try_later:
            outcomes["asked to try later"] += 1
            await asyncio.sleep(RETRY_SEC)
        elif not heard.is_whole(talk):
            outcomes["dropped"] += 1
        else:
            outcomes["right" if heard.text == expected[talk.utt_id] else "wrong"] += 1


async def _recover(server: Server, talk: Talk, expected: Mapping[str, str], found: Abuse) -> None:
    """Whether the server has nothing left of them, and still serves."""
    end = time.monotonic() + RECOVERY_SEC
    health: dict[str, Any] = {}
    while time.monotonic() < end and server.is_running:
        health = await _health(server.port)
        if health["streams"] == health["files"] == 0:
            break
        await asyncio.sleep(RETRY_SEC)
    heard = await converse(server.port, talk)
    is_right = heard.text == expected[talk.utt_id]
    found.files_afterwards = server.usage().num_files
    found.has_recovered = is_right and health.get("streams") == health.get("files") == 0
    found.afterwards = (
        f"{health.get('streams')} streams and {health.get('files')} files are open, and a stream has "
        f"{'the right' if is_right else 'other'} words"
    )


async def _health(port: int) -> dict[str, Any]:
    async with connected(port) as client:
        await send(client, b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = b""
        while data := await asyncio.get_running_loop().sock_recv(client, 65536):
            received += data
    return dict(json.loads(received.partition(b"\r\n\r\n")[2]))
