"""Whether WebSockets pass through the gateway unchanged.

Usage: python websocket_conformance.py DIRECT GATEWAY AUTHORITY PATH COOKIE

Each case is what a client sends once its socket stands: good frames, odd ones and wrong ones. It is sent to
`websocket_server.py` directly, through the gateway over HTTP/1.1, and over HTTP/2 (RFC 8441); what comes back, to the
end, must be the same to the byte. The groups are those of the Autobahn suite. One line a case is printed, `ok` or
`not ok`; the program fails if a case did, or if there was none.
"""

import base64
import os
import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded, StreamReset, WindowUpdated

PATIENCE = 10
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"


def masked(data, mask=MASK):
    whole = int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)], "big")
    return (int.from_bytes(data, "big") ^ whole).to_bytes(len(data), "big")


def frame(opcode, data=b"", fin=True, reserved=0, mask=MASK):
    head = bytes([fin << 7 | reserved << 4 | opcode])
    bit = 0x80 if mask else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 1 << 16:
        head += struct.pack(">BH", bit | 126, len(data))
    else:
        head += struct.pack(">BQ", bit | 127, len(data))
    return head + (mask + masked(data, mask) if mask else data)


def close(code=1000, reason=b""):
    return frame(CLOSE, struct.pack(">H", code) + reason)


def fragments(opcode, data, size):
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    last = len(pieces) - 1
    return [frame(CONTINUED if at else opcode, piece, fin=at == last) for at, piece in enumerate(pieces)]


LARGE = bytes(range(256)) * (1 << 16)  # 16 MiB
UTF8 = "κόσμε 😀".encode()

# Group, name, pieces that are written one by one. Each ends with what makes the server close.
CASES = []
for size in (0, 125, 126, 127, 128, 65535, 65536):
    CASES.append(("1", f"text of {size} bytes", [frame(TEXT, b"*" * size), close()]))
    CASES.append(("1", f"binary of {size} bytes", [frame(BINARY, b"\xfe" * size), close()]))
CASES += [
    ("1", "a mask of zeroes", [frame(TEXT, b"plain", mask=bytes(4)), close()]),
    ("1", "another mask for each frame", [*(frame(TEXT, b"data", mask=os.urandom(4)) for _ in range(20)), close()]),
    ("1", "a frame without a mask", [frame(TEXT, b"bare", mask=None), close()]),
    ("2", "ping", [frame(PING), close()]),
    ("2", "ping with text", [frame(PING, b"Hello, world!"), close()]),
    ("2", "ping with 125 bytes", [frame(PING, b"\xfe" * 125), close()]),
    ("2", "ping with 126 bytes", [frame(PING, b"\xfe" * 126), close()]),
    ("2", "ping byte by byte", [*(bytes([byte]) for byte in frame(PING, b"slow")), close()]),
    ("2", "an unsolicited pong", [frame(PONG, b"nobody asked"), frame(PING, b"1"), close()]),
    ("2", "ten pings", [*(frame(PING, b"payload-%d" % number) for number in range(10)), close()]),
    ("5", "a fragmented ping", [frame(PING, b"a", fin=False), frame(CONTINUED, b"b"), close()]),
    ("5", "text in two fragments", [*fragments(TEXT, b"fragment1fragment2", 9), close()]),
    ("5", "a ping between fragments", [
        frame(TEXT, b"fragment1", fin=False), frame(PING, b"between"), frame(CONTINUED, b"fragment2"), close()]),
    ("5", "pings between many fragments", [
        piece for fragment in fragments(TEXT, b"x" * 100, 7) for piece in (fragment, frame(PING, b"p"))] + [close()]),
    ("5", "empty fragments", [frame(TEXT, fin=False), frame(CONTINUED, fin=False), frame(CONTINUED), close()]),
    ("5", "a continuation of nothing", [frame(CONTINUED, b"lost"), close()]),
    ("5", "a message within a message", [frame(TEXT, b"a", fin=False), frame(TEXT, b"b"), close()]),
    ("5", "fragments byte by byte", [
        bytes([byte]) for byte in b"".join(fragments(BINARY, b"0123456789", 3)) + close()]),
    ("6", "valid UTF-8", [frame(TEXT, UTF8), close()]),
    ("6", "UTF-8 split within a character", [*fragments(TEXT, UTF8, 1), close()]),
    ("6", "invalid UTF-8", [frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80edited"), close()]),
    ("6", "invalid UTF-8 in a later fragment", [frame(TEXT, b"good", fin=False), frame(CONTINUED, b"\xff"), close()]),
    ("7", "close without a code", [frame(CLOSE)]),
    ("7", "close with half a code", [frame(CLOSE, b"\x03")]),
    ("7", "close with a reason", [close(1000, "goodbye 😀".encode())]),
    ("7", "close with the longest reason", [close(1000, b"r" * 123)]),
    ("7", "close with a reason too long", [close(1000, b"r" * 124)]),
    ("7", "close with invalid UTF-8", [close(1000, b"\xff")]),
    ("7", "data behind close", [close(), frame(TEXT, b"late")]),
    ("7", "ping behind close", [close(), frame(PING)]),
    ("9", "a text of 1 MiB", [frame(TEXT, b"t" * (1 << 20)), close()]),
    ("9", "a binary of 16 MiB", [frame(BINARY, LARGE), close()]),
    ("9", "a binary of 16 MiB in fragments of 64 KiB", [*fragments(BINARY, LARGE, 1 << 16), close()]),
    ("10", "a frame chopped into pieces of 1,300 bytes", [
        frame(TEXT, b"c" * 65536)[at : at + 1300] for at in range(0, 65544 + 1300, 1300)] + [close()]),
    ("half-close", "the client ends its side in the middle of a message", [frame(TEXT, b"half", fin=False), None]),
    ("half-close", "the client ends its side behind a message", [frame(TEXT, b"whole"), None]),
    ("half-close", "the client ends its side behind its close", [close(), None]),
]
for reserved in range(1, 8):
    CASES.append(("3", f"reserved bits {reserved:03b}", [frame(TEXT, b"bits", reserved=reserved), close()]))
for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    CASES.append(("4", f"reserved opcode {opcode}", [frame(opcode, b"op"), close()]))
for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
    CASES.append(("7", f"close code {code}", [close(code, b"why")]))
for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
    CASES.append(("7", f"wrong close code {code}", [close(code)]))


def fields(authority, cookie):
    return {
        "origin": f"https://{authority}",
        "sec-websocket-version": "13",
        "cookie": cookie,
    }


class Http1:
    def __init__(self, address, authority, path, cookie):
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        more = {"sec-websocket-key": key, "connection": "Upgrade", "upgrade": "websocket"}
        lines = [f"{name}: {value}" for name, value in (fields(authority, cookie) | more).items()]
        self.write("\r\n".join([f"GET {path} HTTP/1.1", f"host: {authority}", *lines, "", ""]).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, f"no socket: {head}"
            head += byte
        assert head.startswith(b"HTTP/1.1 101 "), head

    def write(self, data):
        self.socket.sendall(data)

    def end(self):
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self):
        while piece := self.socket.recv(1 << 16):
            yield piece


class Http2:
    def __init__(self, address, authority, path, cookie):
        self.socket = socket.create_connection(address, PATIENCE)
        self.http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.received, self.open, self.over, self.allowed = [], False, False, False
        while not self.allowed:
            self.turn()
        pseudo = {
            ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": path, ":authority": authority}
        self.http.send_headers(1, list((pseudo | fields(authority, cookie)).items()))
        while not self.open:
            self.turn()

    def turn(self):
        self.socket.sendall(self.http.data_to_send())
        piece = self.socket.recv(1 << 16)
        assert piece, "the connection ended"
        for event in self.http.receive_data(piece):
            if isinstance(event, RemoteSettingsChanged):
                assert self.http.remote_settings.enable_connect_protocol, "WebSockets are not offered on HTTP/2"
                self.allowed = True
            elif isinstance(event, ResponseReceived):
                got = dict(event.headers)
                assert got[":status"] == "200", got
                assert "sec-websocket-accept" not in got, got
                self.open = True
            elif isinstance(event, DataReceived):
                self.received.append(event.data)
                self.http.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, (StreamEnded, StreamReset)):
                self.over = True
        self.socket.sendall(self.http.data_to_send())

    def write(self, data):
        while data and not self.over:
            room = min(self.http.local_flow_control_window(1), self.http.max_outbound_frame_size, len(data))
            if room == 0:
                self.turn()
                continue
            self.http.send_data(1, data[:room])
            self.socket.sendall(self.http.data_to_send())
            data = data[room:]

    def end(self):
        self.http.end_stream(1)
        self.socket.sendall(self.http.data_to_send())

    def rest(self):
        while not self.over:
            self.turn()
        return self.received


def transcript(connect, pieces):
    """What comes back for `pieces`, to the end. They are written beside the reading: large ones fill every buffer."""
    end = connect()
    with end.socket:
        return exchange(end, pieces)


def exchange(end, pieces):
    if isinstance(end, Http2):
        for piece in pieces:
            end.end() if piece is None else end.write(piece)
        return b"".join(end.rest())

    def write():
        try:
            for piece in pieces:
                end.end() if piece is None else end.write(piece)
        except OSError:
            # The server has refused the rest.
            pass

    with ThreadPoolExecutor(1) as writer:
        writer.submit(write)
        received = []
        try:
            received.extend(end.rest())
        except ConnectionResetError:
            # It closed before it had read everything.
            pass
    return b"".join(received)


def shown(data):
    return f"{len(data)} bytes, {data[:40]!r}"


def main():
    direct, gateway, authority, path, cookie = sys.argv[1:]

    def address(text):
        host, port = text.rsplit(":", 1)
        return host, int(port)

    def run(of):
        group, name, pieces = of
        wrong = []
        try:
            expected = transcript(lambda: Http1(address(direct), authority, path, ""), pieces)
            if not expected:
                wrong.append("nothing came directly")
            for way in (Http1, Http2):
                got = transcript(lambda way=way: way(address(gateway), authority, path, cookie), pieces)
                if got != expected:
                    wrong.append(f"{way.__name__}: {shown(got)} rather than {shown(expected)}")
        except (AssertionError, OSError) as error:
            wrong.append(repr(error))
        return group, name, wrong

    failed = 0
    with ThreadPoolExecutor(4) as several:
        for group, name, wrong in several.map(run, CASES):
            failed += bool(wrong)
            print(f"{'not ok' if wrong else 'ok'} {group} {name}" + (f": {'; '.join(wrong)}" if wrong else ""), flush=True)
    print(f"{len(CASES) - failed} of {len(CASES)} cases passed")
    return bool(failed or not CASES)


if __name__ == "__main__":
    sys.exit(main())
