"""A gRPC application that only reads identity headers. Prints its port, then serves until it is killed.

Usage: python grpc_server.py [CERTIFICATE KEY]

With a certificate and its key, both files, it speaks TLS.

Messages are bytes as they are: methods are registered by name, so nothing is generated from a .proto file.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

CANCELLED = threading.Semaphore(0)


def echo(message, _):
    return message


def echo_each(messages, context):
    context.send_initial_metadata((("x-began", "yes"),))
    for message in messages:
        yield message
    context.set_trailing_metadata((("x-ended", "yes"), ("x-vestibule-sign-out", "session"), ("bytes-bin", b"\x00\xff")))


def metadata(_, context):
    context.set_trailing_metadata((("x-ended", "yes"),))
    return json.dumps([[name, value] for name, value in context.invocation_metadata() if isinstance(value, str)]).encode()


def fail(_, context):
    context.set_trailing_metadata((("x-why", "because"), ("why-bin", b"\x01\x02")))
    context.abort(grpc.StatusCode.NOT_FOUND, "100 % nowhere: Zoë")


def hang(_, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()
    CANCELLED.release()
    return b""


def was_cancelled(_, __):
    return b"yes" if CANCELLED.acquire(timeout=10) else b"no"


METHODS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "EchoEach": grpc.stream_stream_rpc_method_handler(echo_each),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
}

if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("vestibule.Test", METHODS)])
    if sys.argv[1:]:
        certificate, key = (open(name, "rb").read() for name in sys.argv[1:])
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()
