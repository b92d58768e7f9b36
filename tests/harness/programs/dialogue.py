"""One TCP connection, step by step, and what came of each step.

    dialogue.py listen PORT STEP...          accepts one connection
    dialogue.py connect HOST PORT STEP...

Prints a line a step, `<step name> <result>`. A system error is the result `errno NAME` and ends the dialogue.

Steps: send:TEXT  fill:BYTES  recv:BYTES  drain  shutdown  reset  close  peername  sockname  accepted  tell  touch:FILE  await:FILE
`fill` sends that many bytes of one fixed pattern and prints their SHA-256; `drain` reads to the end of the stream and
prints how many bytes came and their SHA-256. `accepted` is the address that accept() gave, and `tell` sends getpeername() to the
other end.
"""

import errno
import hashlib
import os
import socket
import struct
import sys
import time

PATTERN = hashlib.sha512(b"outrigger").digest() * 4096  # 256 KiB


ACCEPTED = []


def endpoint(address):
    return "%s %d" % address[:2]


def say(name, result=""):
    print(name, result, flush=True)


def fill(sock, total):
    digest, sent = hashlib.sha256(), 0
    while sent < total:
        chunk = PATTERN[: min(len(PATTERN), total - sent)]
        sock.sendall(chunk)
        digest.update(chunk)
        sent += len(chunk)
    return f"{sent} {digest.hexdigest()}"


def drain(sock):
    digest, received = hashlib.sha256(), 0
    while chunk := sock.recv(1 << 18):
        digest.update(chunk)
        received += len(chunk)
    return f"{received} {digest.hexdigest()}"


def recv(sock, size):
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            return (data + b"<eof>").decode(errors="replace")
        data += chunk
    return data.decode(errors="replace")


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.005)


STEPS = {
    "send": lambda sock, text: sock.sendall(text.encode()),
    "fill": lambda sock, size: fill(sock, int(size)),
    "recv": lambda sock, size: recv(sock, int(size)),
    "drain": lambda sock, _: drain(sock),
    "shutdown": lambda sock, _: sock.shutdown(socket.SHUT_WR),
    "reset": lambda sock, _: reset(sock),
    "close": lambda sock, _: sock.close(),
    "peername": lambda sock, _: endpoint(sock.getpeername()),
    "sockname": lambda sock, _: endpoint(sock.getsockname()),
    "accepted": lambda *_: endpoint(ACCEPTED[0]),
    "tell": lambda sock, _: sock.sendall(endpoint(sock.getpeername()).encode()),
    "touch": lambda _, path: open(path, "w").close(),
    "await": lambda _, path: await_file(path),
}


def listen(port):
    server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    sock, client = server.accept()
    ACCEPTED.append(client)
    server.close()
    return sock


def main():
    role, args = sys.argv[1], sys.argv[2:]
    name = role
    try:
        if role == "listen":
            sock, steps = listen(int(args[0])), args[1:]
        else:
            sock, steps = socket.create_connection((args[0], int(args[1]))), args[2:]
        say(role, "ok")
        for step in steps:
            name, _, argument = step.partition(":")
            result = STEPS[name](sock, argument)
            say(name, "ok" if result is None else result)
    except OSError as error:
        say(name, "errno " + errno.errorcode.get(error.errno, str(error)))


main()
