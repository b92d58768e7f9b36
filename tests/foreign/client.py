"""Python's own network clients: `client.py NAME:PORT...`, one fact a line, `<label>: <text>`.

Each name has one address or several, of which some fail. The server answers `<address> <port>` of whom it sees.
"""

import asyncio
import errno
import http.client
import selectors
import socket
import sys
import urllib.request

LIMIT = 2.0


def told(error):
    code = errno.errorcode.get(getattr(error, "errno", None), "")
    return f"{type(error).__name__} {code} {error}"


def fact(label, ask):
    try:
        print(f"{label}: {ask()}", flush=True)
    except (OSError, TimeoutError, http.client.HTTPException) as error:
        print(f"{label}: {told(error)}", flush=True)


def seen(body, local):
    """What the server saw, and whether it is what the client holds."""
    seen = body.decode().replace("::ffff:", "").split()
    return f"the server saw {' '.join(seen)}, the same socket: {seen == [local[0], str(local[1])]}"


def body(answer):
    return answer.partition(b"\r\n\r\n")[2]


def asked(connection):
    with connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
        peer, local = connection.getpeername(), connection.getsockname()
    return f"connected to {peer[0]}, {seen(body(answer), local)}"


def create_connection(name, port):
    return asked(socket.create_connection((name, port), timeout=LIMIT))


def urlopen(name, port):
    with urllib.request.urlopen(f"http://{name}:{port}/", timeout=LIMIT) as answer:
        return f"{answer.status}, {len(answer.read().split())} words"


def from_a_port(name, port):
    connection = http.client.HTTPConnection(name, port, timeout=LIMIT, source_address=("", 21500))
    connection.request("GET", "/")
    own = connection.sock.getsockname()
    told = seen(connection.getresponse().read(), own)
    connection.close()
    return told


def happy_eyeballs(name, port):
    async def race():
        opened = asyncio.open_connection(name, port, happy_eyeballs_delay=0.25)
        reader, writer = await asyncio.wait_for(opened, LIMIT)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        peer, local = (writer.get_extra_info(key) for key in ("peername", "sockname"))
        writer.close()
        return f"connected to {peer[0]}, {seen(body(answer), local)}"

    return asyncio.run(race())


def non_blocking(name, port):
    """connect_ex, a selector, then SO_ERROR, as event loops do it; the first address only."""
    family, kind, protocol, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as connection, selectors.DefaultSelector() as selector:
        connection.setblocking(False)
        at_once = connection.connect_ex(address)
        if at_once not in (0, errno.EINPROGRESS):
            return f"at once {errno.errorcode[at_once]}"
        selector.register(connection, selectors.EVENT_WRITE)
        if not selector.select(LIMIT):
            return f"at once {errno.errorcode.get(at_once, 0)}, nothing within {LIMIT} s"
        later = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return f"at once {errno.errorcode.get(at_once, 0)}, then {errno.errorcode.get(later, 0)}"


targets = [(name, int(port)) for name, _, port in (target.partition(":") for target in sys.argv[1:])]
for target in targets:
    for ask in (create_connection, urlopen, happy_eyeballs, non_blocking):
        fact(f"{ask.__name__} to {target[0]}", lambda: ask(*target))
fact("http.client from a port of its own choice", lambda: from_a_port(*targets[0]))
