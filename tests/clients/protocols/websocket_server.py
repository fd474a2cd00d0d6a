"""A WebSocket application that sends every frame back. Prints its port, then serves until it is killed.

It goes frame by frame, so that what it sends follows from what it received, however that was cut into pieces: a
message comes back in the fragments in which it came, a ping as a pong, a close as a close. What breaks a rule of
RFC 6455 is answered by a close with the code for it, and the end.
"""

import base64
import codecs
import hashlib
import socket
import socketserver
import struct

SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, *range(3000, 5000)}


class Broken(Exception):
    pass


class Gone(Exception):
    pass


def unmasked(data, mask):
    whole = int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)], "big")
    return (int.from_bytes(data, "big") ^ whole).to_bytes(len(data), "big")


class Echo(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        fields = {}
        self.rfile.readline()
        while line := self.rfile.readline().strip():
            name, value = line.split(b":", 1)
            fields[name.strip().lower()] = value.strip()
        accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + SUFFIX).digest())
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        # The decoder of a text that is under way, or what else is.
        self.message = None
        try:
            while self.frame():
                pass
        except Broken as broken:
            code, why = broken.args
            self.send(0x80 | CLOSE, struct.pack(">H", code) + why.encode())
        except (Gone, ConnectionError):
            pass
        self.drain()

    def drain(self):
        """Ends our side, then reads what is under way: closing on unread bytes would reset what we sent last."""
        try:
            self.request.shutdown(socket.SHUT_WR)
            while self.rfile.read1(1 << 16):
                pass
        except OSError:
            pass

    def read(self, count):
        data = self.rfile.read(count)
        if len(data) < count:
            raise Gone
        return data

    def send(self, first, data):
        if len(data) < 126:
            head = bytes([first, len(data)])
        elif len(data) < 1 << 16:
            head = struct.pack(">BBH", first, 126, len(data))
        else:
            head = struct.pack(">BBQ", first, 127, len(data))
        self.wfile.write(head + data)

    def frame(self):
        """Answers one frame. Whether another may come."""
        first, second = self.read(2)
        fin, opcode, length = first & 0x80, first & 0x0F, second & 0x7F
        if first & 0x70:
            raise Broken(1002, "reserved bits")
        if opcode not in (CONTINUED, TEXT, BINARY, CLOSE, PING, PONG):
            raise Broken(1002, "opcode")
        if not second & 0x80:
            raise Broken(1002, "no mask")
        if opcode >= CLOSE and (length > 125 or not fin):
            raise Broken(1002, "control frame")
        if length == 126:
            (length,) = struct.unpack(">H", self.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.read(8))
        mask = self.read(4)
        data = unmasked(self.read(length), mask)
        if opcode == PING:
            self.send(0x80 | PONG, data)
        elif opcode == CLOSE:
            self.closed(data)
            return False
        elif opcode != PONG:
            self.part(first, fin, opcode, data)
        return True

    def part(self, first, fin, opcode, data):
        if (opcode == CONTINUED) != (self.message is not None):
            raise Broken(1002, "fragments")
        if opcode != CONTINUED:
            self.message = codecs.getincrementaldecoder("utf-8" if opcode == TEXT else "latin-1")()
        try:
            self.message.decode(data, final=bool(fin))
        except UnicodeDecodeError:
            raise Broken(1007, "UTF-8") from None
        self.send(first, data)
        if fin:
            self.message = None

    def closed(self, data):
        if len(data) == 1:
            raise Broken(1002, "half a code")
        if data:
            (code,) = struct.unpack(">H", data[:2])
            if code not in CODES:
                raise Broken(1002, "code")
            try:
                data[2:].decode()
            except UnicodeDecodeError:
                raise Broken(1007, "UTF-8") from None
        self.send(0x80 | CLOSE, data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Echo) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
