"""Connections at a steady rate, each with its outcome.

    attempts.py RATE STOP TEXT HOST PORT [HOST PORT]...

Opens RATE connections a second, to the servers in turn, says TEXT on each, waits for it to come back, and closes it. Prints a
line for each that has ended, `<begun> <ended> <host> <port> <outcome>`, with times in seconds since 1970. The outcome is
`served`; `connect <errno>` where connect() has failed; or `cut <errno>` where it has not, and TEXT did not come back. Ends once
the file STOP exists and no connection is under way.
"""

import asyncio
import errno
import os
import sys
import time

rate, stop, text = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
servers = list(zip(sys.argv[4::2], map(int, sys.argv[5::2])))
# Longer than a SYN is sent again after 1, 3, 7 and 15 seconds.
PATIENCE = 20
under_way = set()


def name(error):
    return errno.errorcode.get(getattr(error, "errno", None), type(error).__name__)


async def exchange(reader, writer):
    writer.write(text)
    if await reader.readexactly(len(text)) != text:
        raise ValueError


async def outcome(host, port):
    step = "connect"
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), PATIENCE)
        step = "cut"
        await asyncio.wait_for(exchange(reader, writer), PATIENCE)
        writer.close()
        return "served"
    except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
        return f"{step} {name(error)}"


async def attempt(host, port):
    begun = time.time()
    ended = await outcome(host, port)
    print(f"{begun:.6f} {time.time():.6f} {host} {port} {ended}", flush=True)


async def main():
    begun, count = time.monotonic(), 0
    while not os.path.exists(stop):
        due = int((time.monotonic() - begun) * rate)
        # What a busy machine could not begin in time it does not make up for.
        count = max(count, due - rate // 4)
        while count < due:
            task = asyncio.create_task(attempt(*servers[count % len(servers)]))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            count += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*under_way)


asyncio.run(main())
