"""Connections without end, of which none may fail.

    ceaseless.py RATE OPEN STOP [open|closed] HOST PORT [open|closed HOST PORT]...

Keeps OPEN connections to each `open` server for as long as it runs, and says something on each, in turn. Besides it opens RATE
connections a second, to the servers in turn, says something on each, and closes it. A connection to a `closed` server has to be
refused. Prints `begun` once all are open, then now and then `so far <connections>`. When the file STOP exists it ends: a line
`failed <what> <how many>` for each kind of failure, then `done <connections> <exchanges on those kept open>`.
"""

import asyncio
import collections
import errno
import os
import resource
import sys
import time

rate, kept, stop = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
words = sys.argv[4:]
servers = list(zip(words[0::3], words[1::3], map(int, words[2::3])))
PATIENCE = 30
failed = collections.Counter()
done = 0
exchanges = 0
under_way = set()


def name(error):
    return errno.errorcode.get(getattr(error, "errno", None), type(error).__name__)


def fail(step, host, port, error):
    failed[f"{step} {host} {port} {name(error)}"] += 1


async def exchange(reader, writer, text):
    writer.write(text)
    answer = await asyncio.wait_for(reader.readexactly(len(text)), PATIENCE)
    if answer != text:
        raise ValueError(answer)


async def connect(host, port):
    return await asyncio.wait_for(asyncio.open_connection(host, port), PATIENCE)


async def once(kind, host, port):
    global done
    step = "connect"
    try:
        reader, writer = await connect(host, port)
        if kind == "closed":
            failed[f"connected {host} {port}"] += 1
        else:
            step = "exchange"
            await exchange(reader, writer, b"once")
        writer.close()
    except Exception as error:
        if kind != "closed" or not isinstance(error, ConnectionRefusedError):
            fail(step, host, port, error)
    done += 1


async def keep(number, host, port, opened):
    global exchanges
    step = "open"
    try:
        reader, writer = await connect(host, port)
        step = "keep"
        await exchange(reader, writer, b"open")
        opened.release()
        while not os.path.exists(stop):
            await asyncio.sleep(1)
            await exchange(reader, writer, b"%d" % number)
            exchanges += 1
        writer.close()
    except Exception as error:
        fail(step, host, port, error)
        opened.release()


async def main():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    opened = asyncio.Semaphore(0)
    keeping = []
    for kind, host, port in servers:
        if kind == "open":
            for number in range(kept):
                keeping.append(asyncio.create_task(keep(number, host, port, opened)))
                await asyncio.sleep(0.001)
    for _ in keeping:
        await opened.acquire()
    print("begun", flush=True)
    begun, count, said = time.monotonic(), 0, 0
    while not os.path.exists(stop):
        due = int((time.monotonic() - begun) * rate)
        # What a busy machine could not begin in time it does not make up for.
        count = max(count, due - rate // 4)
        while count < due and len(under_way) < 1024:
            task = asyncio.create_task(once(*servers[count % len(servers)]))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            count += 1
        await asyncio.sleep(0.005)
        if time.monotonic() - said > 0.2:
            said = time.monotonic()
            print("so far", done, flush=True)
    await asyncio.gather(*under_way, *keeping)
    for what, how_many in failed.items():
        print("failed", what, how_many, flush=True)
    print("done", done, exchanges, flush=True)


asyncio.run(main())
