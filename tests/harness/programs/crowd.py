"""Many connections at once to an echo server.

    crowd.py HOST PORT COUNT

Opens all of them, and only when all are open sends a text of its own on each and reads it back. Prints how many
answered right, and the first few errors.
"""

import asyncio
import collections
import sys


async def one(host, port, number, opened, all_open):
    try:
        reader, writer = await asyncio.open_connection(host, port)
    finally:
        opened.release()
    await all_open.wait()
    text = f"connection {number:06}".encode() * 8
    writer.write(text)
    answer = await reader.readexactly(len(text))
    writer.close()
    if answer != text:
        raise ValueError(f"sent {text!r}, got {answer!r}")


async def main(host, port, count):
    opened, all_open = asyncio.Semaphore(0), asyncio.Event()
    tasks = [asyncio.create_task(one(host, port, number, opened, all_open)) for number in range(count)]
    for _ in range(count):
        await opened.acquire()
    all_open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    errors = collections.Counter(repr(result) for result in results if result is not None)
    print(count - errors.total())
    for error, times in errors.most_common(5):
        print(f"{times} x {error}", file=sys.stderr)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
