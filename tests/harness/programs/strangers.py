"""Strangers at a TLS port: many connections that say nothing, and handshakes that ask for nothing.

    strangers.py COUNT RATE STOP HOST PORT [HOST PORT]...

Keeps COUNT silent connections to the servers together, opening a new one for each that the server closes, and makes RATE
handshakes a second, each kept for as long as the server lets it. Prints `ready` once COUNT connections have been opened.
Ends when the file STOP exists, and prints `handshakes <how many>`.
"""

import asyncio
import os
import resource
import ssl
import sys

count, rate, stop = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
servers = list(zip(sys.argv[4::2], map(int, sys.argv[5::2])))
# New connections a second for those that were closed; without a bound it would measure this program's own hunger.
REOPENED = 400

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2"])

opened = 0
handshakes = 0
budget = asyncio.Semaphore(0)


async def silent(server):
    global opened
    first = True
    while True:
        if not first:
            await budget.acquire()
        first = False
        try:
            reader, writer = await asyncio.open_connection(*server)
        except OSError:
            continue
        opened += 1
        try:
            await reader.read(1)
        except OSError:
            pass
        writer.close()


async def handshake(server):
    global handshakes
    try:
        reader, writer = await asyncio.open_connection(*server, ssl=context)
        handshakes += 1
        await reader.read(100000)
        await reader.read(100000)
        writer.close()
    except (OSError, ssl.SSLError):
        pass


async def refill():
    while True:
        await asyncio.sleep(0.05)
        if budget._value < REOPENED:
            for _ in range(REOPENED // 20):
                budget.release()


async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tasks = [asyncio.create_task(refill())]
    for n in range(count):
        tasks.append(asyncio.create_task(silent(servers[n % len(servers)])))
    said, n = False, 0
    while not os.path.exists(stop):
        for _ in range(max(rate // 20, 1)):
            n += 1
            tasks.append(asyncio.create_task(handshake(servers[n % len(servers)])))
        await asyncio.sleep(0.05)
        if not said and opened >= count:
            print("ready", flush=True)
            said = True
    print("handshakes", handshakes, flush=True)
    os._exit(0)


asyncio.run(main())
