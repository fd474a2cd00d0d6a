"""A gRPC client of `grpc_server.py`, through the gateway.

Usage: python grpc_client.py ADDRESS AUTHORITY [TOKEN [CA]]

With CA, the file of an authority's certificate, it speaks TLS; an empty TOKEN is none.

Reads the names of what to do from standard input, one a line, and answers each with a line of JSON.
"""

import json
import queue
import sys

import grpc

PATIENCE = 15


def pairs(metadata):
    return {name: value if isinstance(value, str) else list(value) for name, value in metadata or ()}


class Client:
    def __init__(self, address, authority, token=None, ca=None):
        options = [("grpc.default_authority", authority), ("grpc.enable_retries", 0)]
        if ca:
            # What it asks for in the handshake, and expects to see in the certificate.
            options.append(("grpc.ssl_target_name_override", authority))
            with open(ca, "rb") as file:
                credentials = grpc.ssl_channel_credentials(file.read())
            self.channel = grpc.secure_channel(address, credentials, options)
        else:
            self.channel = grpc.insecure_channel(address, options)
        self.metadata = [("x-user-id", "forged")]
        if token:
            self.metadata.append(("authorization", f"Bearer {token}"))
        self.open = None

    def unary(self, method, message=b"", timeout=PATIENCE):
        call = self.channel.unary_unary(f"/vestibule.Test/{method}")
        try:
            reply, call = call.with_call(message, timeout=timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details(), "trailers": pairs(error.trailing_metadata())}
        return {"code": call.code().name, "reply": reply.decode(), "trailers": pairs(call.trailing_metadata())}

    def echo(self):
        return self.unary("Echo", b"hello")

    def large(self):
        message = b"x" * (3 << 20)
        answered = self.unary("Echo", message)
        answered["reply"] = answered.get("reply", "").encode() == message
        return answered

    def metadata_(self):
        return self.unary("Metadata")

    def fail(self):
        return self.unary("Fail")

    def nowhere(self):
        call = self.channel.unary_unary("/nobody.Serves/This")
        try:
            call(b"", timeout=PATIENCE)
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details()}
        return {"code": "OK"}

    def deadline(self):
        return self.unary("Hang", timeout=0.3)

    def was_cancelled(self):
        return self.unary("WasCancelled")

    def begin(self):
        """A stream both ways; each message goes out only once the one before came back."""
        self.messages = queue.Queue()
        call = self.channel.stream_stream("/vestibule.Test/EchoEach")
        self.open = call(iter(self.messages.get, None), metadata=self.metadata)
        return self.exchange()

    def exchange(self):
        replies = []
        try:
            for number in range(10):
                message = f"message {number}".encode()
                self.messages.put(message)
                replies.append(next(self.open) == message)
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details()}
        return {"code": "open", "replies": all(replies), "began": pairs(self.open.initial_metadata())}

    def end(self):
        self.messages.put(None)
        return self.ended()

    def ended(self):
        """Waits until the stream has ended, by whoever's doing."""
        rest = []
        try:
            rest.extend(self.open)
        except grpc.RpcError:
            pass
        return {"code": self.open.code().name, "rest": len(rest), "details": self.open.details(),
                "trailers": pairs(self.open.trailing_metadata())}


def main():
    client = Client(*sys.argv[1:])
    for line in sys.stdin:
        name = line.strip()
        did = getattr(client, "metadata_" if name == "metadata" else name)()
        print(json.dumps(did), flush=True)


if __name__ == "__main__":
    main()
