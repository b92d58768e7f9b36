"""Connections to an echo server, one after the other, each for one exchange.

    one_by_one.py HOST PORT COUNT
"""

import socket
import sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(count):
    with socket.create_connection((host, port), 30) as sock:
        sock.sendall(b"x" * 128)
        if sock.recv(1024) != b"x" * 128:
            sys.exit("no echo")
