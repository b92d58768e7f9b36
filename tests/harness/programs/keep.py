"""Many connections to echo servers, kept open.

    keep.py COUNT STOP TEXT HOST PORT [HOST PORT]...

Opens COUNT connections to each server, all at once, and on each sends TEXT, if it is not empty, and reads it back.
Prints `<result> <how many>` a line, where the result is `ok`, `reset` or the step that failed with its errno, then
`opened`. When the file STOP exists, repeats the exchange on those that were ok, and prints `alive <how many>`.
"""

import asyncio
import collections
import errno
import os
import resource
import sys

count, stop, text = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
servers = list(zip(sys.argv[4::2], map(int, sys.argv[5::2])))
PATIENCE = 30
kept = []


def result(step, error):
    if isinstance(error, ConnectionResetError):
        # Also connect() may find it, if the reset comes as soon as the acceptance.
        return "reset"
    return step + " " + errno.errorcode.get(getattr(error, "errno", None), type(error).__name__)


async def exchange(reader, writer):
    writer.write(text)
    answer = await asyncio.wait_for(reader.readexactly(len(text)), PATIENCE)
    if answer != text:
        raise ValueError(answer)


async def open_one(host, port):
    try:
        streams = await asyncio.wait_for(asyncio.open_connection(host, port), PATIENCE)
    except (OSError, asyncio.TimeoutError) as error:
        return result("connect", error)
    try:
        await exchange(*streams)
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        return result("exchange", error)
    kept.append(streams)
    return "ok"


async def still(streams):
    try:
        await exchange(*streams)
        return True
    except (OSError, EOFError, asyncio.TimeoutError):
        return False


async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = await asyncio.gather(*(open_one(*server) for server in servers for _ in range(count)))
    for result, many in sorted(collections.Counter(results).items()):
        print(result, many)
    print("opened", flush=True)
    while not os.path.exists(stop):
        await asyncio.sleep(0.02)
    alive = await asyncio.gather(*map(still, kept))
    print("alive", sum(alive), flush=True)


asyncio.run(main())
