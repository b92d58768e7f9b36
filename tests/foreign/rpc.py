"""gRPC, with plain bytes as messages: `rpc.py server PORT`, or `rpc.py client LABEL=TARGET...`, one fact a line.

A target may be a list of addresses, of which some fail; gRPC takes the first that answers.
"""

import sys
from concurrent import futures

import grpc

LIMIT = 3


class Rooms(grpc.GenericRpcHandler):
    """Who calls, a stream from the server, one to it, and both at once."""

    def service(self, call):
        return {
            "/demo/Who": grpc.unary_unary_rpc_method_handler(lambda request, call: call.peer().encode()),
            "/demo/Count": grpc.unary_stream_rpc_method_handler(count),
            "/demo/Sum": grpc.stream_unary_rpc_method_handler(total),
            "/demo/Echo": grpc.stream_stream_rpc_method_handler(lambda requests, call: requests),
            "/demo/Fail": grpc.unary_unary_rpc_method_handler(fail),
        }.get(call.method)


def count(request, call):
    for n in range(int(request)):
        yield b"x" * n


def total(requests, call):
    return str(sum(len(request) for request in requests)).encode()


def fail(request, call):
    call.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[Rooms()])
    if server.add_insecure_port(f"[::]:{port}") == 0:
        sys.exit(f"port {port} is taken")
    server.start()
    server.wait_for_termination()


def fact(label, ask):
    try:
        print(f"{label}: {ask()}", flush=True)
    except grpc.RpcError as error:
        print(f"{label}: {error.code().name} {error.details()}", flush=True)


def ask(label, target):
    options = [("grpc.enable_http_proxy", 0), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(target, options=options) as channel:
        fact(f"{label}, who", lambda: channel.unary_unary("/demo/Who")(b"", timeout=LIMIT).decode())
        fact(f"{label}, a stream from it", lambda: sum(map(len, channel.unary_stream("/demo/Count")(b"500", timeout=LIMIT))))
        numbers = [b"x" * n for n in range(500)]
        fact(f"{label}, a stream to it", lambda: channel.stream_unary("/demo/Sum")(iter(numbers), timeout=LIMIT).decode())
        fact(f"{label}, both", lambda: list(channel.stream_stream("/demo/Echo")(iter(numbers), timeout=LIMIT)) == numbers)
        fact(f"{label}, a failure", lambda: channel.unary_unary("/demo/Fail")(b"", timeout=LIMIT))
        fact(f"{label}, an unknown method", lambda: channel.unary_unary("/demo/None")(b"", timeout=LIMIT))


if sys.argv[1] == "server":
    serve(sys.argv[2])
else:
    for argument in sys.argv[2:]:
        ask(*argument.split("=", 1))
