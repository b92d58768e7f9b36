"""A server that shares the ports it listens on with whoever lets it: `intruder.py TAKEN [HOST]:PORT...`.

Answers everybody with its name, and keeps in the file TAKEN, one line a connection, the address and port that were
dialled. The file exists once it listens; a port that it cannot have is no mistake.
"""

import asyncio
import socket
import sys

taken, places = open(sys.argv[1], "w", buffering=1), sys.argv[2:]


async def serve(reader, writer):
    print(*writer.get_extra_info("sockname")[:2], file=taken)
    writer.write(b"intruder\n")
    writer.close()


async def main():
    servers = []
    for place in places:
        host, port = place.rsplit(":", 1)
        sock = socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind((host.strip("[]"), int(port)))
            servers.append(await asyncio.start_server(serve, sock=sock, backlog=4096))
            print("listens", place, flush=True)
        except OSError as error:
            print("cannot have", place, error.strerror, flush=True)
    print("all tried", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
