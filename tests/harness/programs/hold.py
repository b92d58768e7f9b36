"""Connections whose program does not do its part.

    hold.py serve PORT fire|sink|drain
        A server that sends without end, that accepts and never reads, or that reads all and says nothing.
    hold.py stream HOST PORT
        A connection that is written to without end.
    hold.py read HOST PORT COUNT BYTES STOP
        COUNT connections, one after the other; of each at most BYTES are read, then nothing.
    hold.py write HOST PORT COUNT SIZE STOP
        COUNT connections; each is written to in pieces of SIZE bytes until nothing moves any more.
    hold.py abandon HOST PORT COUNT TIMES MILLISECONDS
        TIMES times: COUNT connects at once, given up after so long whatever has become of them.

`read` and `write` print `held <connections> <bytes>` when nothing moves any more, hold all until the file STOP exists,
and then print `alive <connections>`: those that nobody has reset.
"""

import os
import resource
import select
import socket
import sys
import threading
import time

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
# So long without progress is no progress.
QUIET = 1.0


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def serve(port, what):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    block = b"x" * 65536

    def fire(connection):
        try:
            while True:
                connection.sendall(block)
        except OSError:
            connection.close()

    def drain(connection):
        try:
            while connection.recv(65536):
                pass
        except OSError:
            pass
        connection.close()

    kept, threads = [], {"fire": fire, "drain": drain}
    while True:
        connection, _ = listener.accept()
        if what in threads:
            threading.Thread(target=threads[what], args=(connection,), daemon=True).start()
        else:
            kept.append(connection)


def connected(host, port, count):
    sockets = []
    for _ in range(count):
        connection = socket.socket(family(host))
        connection.settimeout(30)
        connection.connect((host, port))
        connection.setblocking(False)
        sockets.append(connection)
    return sockets


def hold(sockets, moved, stop):
    print("held", len(sockets), moved, flush=True)
    while not os.path.exists(stop):
        time.sleep(0.02)
    alive = 0
    for connection in sockets:
        alive += connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    print("alive", alive, flush=True)


def read(host, port, count, most, stop):
    sockets = connected(host, port, count)
    left = {connection.fileno(): (connection, most) for connection in sockets}
    poll = select.poll()
    for number in left:
        poll.register(number, select.POLLIN)
    moved = 0
    while most and left:
        ready = poll.poll(QUIET * 1000)
        if not ready:
            break
        for number, _ in ready:
            connection, rest = left[number]
            got = len(connection.recv(min(rest, 65536)))
            moved += got
            left[number] = (connection, rest - got)
            if got == 0 or rest == got:
                poll.unregister(number)
                del left[number]
    time.sleep(QUIET)
    hold(sockets, moved, stop)


def write(host, port, count, size, stop):
    sockets = connected(host, port, count)
    for connection in sockets:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    by_number = {connection.fileno(): connection for connection in sockets}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLOUT)
    block, moved = b"x" * size, 0
    while True:
        ready = poll.poll(QUIET * 1000)
        if not ready:
            break
        for number, _ in ready:
            try:
                moved += by_number[number].send(block)
            except BlockingIOError:
                pass
    hold(sockets, moved, stop)


def stream(host, port):
    with socket.create_connection((host, port), 30) as connection:
        connection.settimeout(None)
        while True:
            connection.sendall(b"x" * 65536)


def abandon(host, port, count, times, milliseconds):
    for _ in range(times):
        sockets = []
        for _ in range(count):
            connection = socket.socket(family(host))
            connection.setblocking(False)
            connection.connect_ex((host, port))
            sockets.append(connection)
        time.sleep(milliseconds / 1000)
        for connection in sockets:
            connection.close()
    print("abandoned", count * times, flush=True)


what, arguments = sys.argv[1], sys.argv[2:]
if what == "serve":
    serve(int(arguments[0]), arguments[1])
elif what == "stream":
    stream(arguments[0], int(arguments[1]))
elif what == "abandon":
    abandon(arguments[0], *map(int, arguments[1:5]))
else:
    action = {"read": read, "write": write}[what]
    action(arguments[0], *map(int, arguments[1:4]), arguments[4])
