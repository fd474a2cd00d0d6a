"""Whether a server keeps the rules of HTTP/2 that a client can break: RFC 9113 frame by frame, and RFC 7541.

Usage: python h2_conformance.py ADDRESS AUTHORITY PATH

Each case is a connection of its own, written byte by byte: a library would refuse to send most of it. PATH must answer
GET and POST with 200 and more than one byte. One line a case is printed, `ok` or `not ok`; the program fails if a case
did, or if there was none. Where the specification lets a server choose (a stream error or one of the connection, an
answer of 400 to a malformed request), any of the choices is right. PROTOCOL_ERROR is taken for every other code where
something has to end: it says less, and ends it all the same.
"""

import contextlib
import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import hpack
import hyperframe.frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 5
# What a length of three bytes can say: who takes frames of that size takes all.
LARGEST_FRAME = (1 << 24) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL, INTERNAL, FLOW_CONTROL, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE, REFUSED, CANCEL, COMPRESSION, \
    CONNECT, CALM = range(12)

ADDRESS, AUTHORITY, PATH = None, None, None
CASES = []

# What the library under the gateway lets pass, and why that is borne. Each fails; one that does not is reported.
BORNE = {
    "a preface without SETTINGS behind it is an error":
        "the library takes them whenever they come; until then the specification's defaults hold",
    "a pseudo field among trailers is malformed":
        "the library drops such fields before anybody could see them, and the rest is as it was",
}


def case(section, title):
    def add(run):
        CASES.append((section, title, run))
        return run

    return add


class Failed(Exception):
    pass


class Closed(Exception):
    pass


def frame(kind, flags, stream, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack(">BHBBL", length >> 16, length & 0xFFFF, kind, flags, stream) + payload


class Connection:
    def __init__(self, settings=None, preface=True):
        self.socket = socket.create_connection(ADDRESS, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.decoder.max_allowed_table_size = 1 << 20
        # Their settings, and frames that came while something else was waited for.
        self.theirs, self.kept = None, []
        if preface:
            self.send(PREFACE + frame(SETTINGS, 0, 0, setting(settings or {})))
            self.until(lambda got: isinstance(got, frames.SettingsFrame) and "ACK" not in got.flags)
            self.send(frame(SETTINGS, ACK, 0))

    def send(self, data):
        # What a server that has refused already does not take is refused all the same.
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def read(self):
        """The next frame, whatever it is."""
        while len(self.buffer) < 9:
            self.more()
        got, length = frames.Frame.parse_frame_header(memoryview(self.buffer[:9]))
        while len(self.buffer) < 9 + length:
            self.more()
        body, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
        got.parse_body(memoryview(body))
        if isinstance(got, frames.SettingsFrame) and "ACK" not in got.flags:
            self.theirs = {**(self.theirs or {}), **got.settings}
        if isinstance(got, frames.HeadersFrame):
            block = got.data
            while "END_HEADERS" not in got.flags:
                rest = self.read()
                block += rest.data
                if "END_HEADERS" in rest.flags:
                    break
            got.fields = dict(self.decoder.decode(block))
        return got

    def more(self):
        try:
            piece = self.socket.recv(65536)
        except ConnectionError:
            raise Closed from None
        except TimeoutError:
            raise Failed(f"nothing came for {PATIENCE} s") from None
        if not piece:
            raise Closed
        self.buffer += piece

    def until(self, wanted):
        """The next frame that is wanted; others are passed over."""
        while True:
            got = self.read()
            if wanted(got):
                return got
            if isinstance(got, frames.GoAwayFrame) and got.error_code:
                raise Failed(f"GOAWAY with {got.error_code} {got.additional_data!r}")

    def block(self, fields):
        return self.encoder.encode(fields, huffman=False)

    def headers(self, stream, fields=None, flags=END_STREAM | END_HEADERS):
        self.send(frame(HEADERS, flags, stream, self.block(fields or request())))

    # What came of it.

    def answered(self, stream, status="200"):
        got = self.until(lambda got: isinstance(got, (frames.HeadersFrame, frames.RstStreamFrame)) and got.stream_id == stream)
        if isinstance(got, frames.RstStreamFrame):
            raise Failed(f"RST_STREAM with {got.error_code} rather than an answer")
        if got.fields[":status"] != status:
            raise Failed(f"status {got.fields[':status']} rather than {status}")
        return got

    def ended(self, stream):
        got = self.answered(stream)
        data = b""
        while "END_STREAM" not in got.flags:
            got = self.until(lambda got: isinstance(got, (frames.DataFrame, frames.HeadersFrame)) and got.stream_id == stream)
            data += getattr(got, "data", b"")
        return data

    def alive(self):
        self.send(frame(PING, 0, 0, b"isalive?"))
        self.until(lambda got: isinstance(got, frames.PingFrame) and "ACK" in got.flags and got.opaque_data == b"isalive?")

    def connection_error(self, *codes):
        """GOAWAY with one of the codes, or the end of the connection (5.4.1)."""
        try:
            while True:
                got = self.read()
                if isinstance(got, frames.GoAwayFrame) and got.error_code != NO_ERROR:
                    if got.error_code in (*codes, PROTOCOL):
                        return
                    raise Failed(f"GOAWAY with {got.error_code} rather than {codes}")
        except Closed:
            return

    def stream_error(self, stream, *codes, or_status=None):
        """RST_STREAM with one of the codes, or what ends the whole connection."""
        try:
            while True:
                got = self.read()
                if isinstance(got, frames.RstStreamFrame) and got.stream_id == stream:
                    if got.error_code in codes:
                        return
                    raise Failed(f"RST_STREAM with {got.error_code} rather than {codes}")
                if isinstance(got, frames.GoAwayFrame) and got.error_code != NO_ERROR:
                    if got.error_code in (*codes, PROTOCOL):
                        return
                    raise Failed(f"GOAWAY with {got.error_code} rather than {codes}")
                if or_status and isinstance(got, frames.HeadersFrame) and got.stream_id == stream:
                    if got.fields[":status"] == or_status:
                        return
                    raise Failed(f"status {got.fields[':status']} to what is malformed")
        except Closed:
            return

    def malformed(self, stream):
        """8.1.1: a stream error, behind an answer of 400 if the server likes."""
        self.stream_error(stream, PROTOCOL, or_status="400")


def setting(values):
    return b"".join(struct.pack(">HL", name, value) for name, value in values.items())


def request(method="GET", *more, **changed):
    fields = {":method": method, ":scheme": "http", ":authority": AUTHORITY, ":path": PATH}
    fields.update({":" + name: value for name, value in changed.items()})
    return [(name, value) for name, value in fields.items() if value is not None] + list(more)


def literal(name, value):
    """A field that is neither indexed nor compressed, whatever it holds."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


# --- Ordinary traffic: what refuses everything would pass all the rest.


@case("2", "a request is answered")
def _():
    c = Connection()
    c.headers(1)
    assert len(c.ended(1)) > 1
    c.alive()


@case("2", "several requests on one connection are answered")
def _():
    c = Connection()
    for stream in (1, 3, 5, 7):
        c.headers(stream)
        c.ended(stream)


@case("2", "a request with a body is answered")
def _():
    c = Connection()
    c.headers(1, request("POST", ("content-length", "8")), END_HEADERS)
    c.send(frame(DATA, 0, 1, b"four") + frame(DATA, END_STREAM, 1, b"more"))
    c.ended(1)


@case("2", "a request with padding and a priority is answered")
def _():
    c = Connection()
    block = c.block(request("POST"))
    c.send(frame(HEADERS, END_HEADERS | PADDED | PRIORITISED, 1, b"\x05" + struct.pack(">LB", 0, 15) + block + bytes(5)))
    c.send(frame(DATA, END_STREAM | PADDED, 1, b"\x03data" + bytes(3)))
    c.ended(1)


@case("2", "HEAD has no body")
def _():
    c = Connection()
    c.headers(1, request("HEAD"))
    if c.ended(1):
        raise Failed("a body")


@case("2", "a field block in several CONTINUATION frames is read")
def _():
    c = Connection()
    block = c.block(request())
    c.send(frame(HEADERS, END_STREAM, 1, block[:1]) + frame(CONTINUATION, 0, 1))
    c.send(frame(CONTINUATION, 0, 1, block[1:2]) + frame(CONTINUATION, END_HEADERS, 1, block[2:]))
    c.ended(1)


@case("2", "trailers are read")
def _():
    c = Connection()
    c.headers(1, request("POST", ("te", "trailers")), END_HEADERS)
    c.send(frame(DATA, 0, 1, b"data"))
    c.headers(1, [("x-checksum", "1")])
    c.ended(1)


@case("2", "a cancelled request leaves the connection as it was")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(RST_STREAM, 0, 1, struct.pack(">L", CANCEL)))
    c.headers(3)
    c.ended(3)


# --- 3.4 Preface


@case("3.4", "the server's first frame is SETTINGS")
def _():
    c = Connection(preface=False)
    c.send(PREFACE + frame(SETTINGS, 0, 0))
    if not isinstance(c.read(), frames.SettingsFrame):
        raise Failed("another frame")


@case("3.4", "what is no preface ends the connection")
def _():
    c = Connection(preface=False)
    c.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
    with contextlib.suppress(Closed):
        while True:
            c.more()


@case("3.4", "a preface without SETTINGS behind it is an error")
def _():
    c = Connection(preface=False)
    c.send(PREFACE + frame(PING, 0, 0, bytes(8)))
    c.connection_error(PROTOCOL)


# --- 4 Frames


@case("4.1", "a frame of an unknown type is ignored")
def _():
    c = Connection()
    c.send(frame(0x16, 0, 0, bytes(8)) + frame(0x16, 0xFF, 1, b"x"))
    c.alive()


@case("4.1", "flags without a meaning are ignored")
def _():
    c = Connection()
    c.send(frame(PING, 0xFE & ~ACK, 0, b"flagged!"))
    c.until(lambda got: isinstance(got, frames.PingFrame) and got.opaque_data == b"flagged!")


@case("4.1", "the reserved bit of a stream's number is ignored")
def _():
    c = Connection()
    c.send(frame(PING, 0, 1 << 31, b"reserved"))
    c.until(lambda got: isinstance(got, frames.PingFrame) and got.opaque_data == b"reserved")


@case("4.2", "DATA of 2^14 bytes is read")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(DATA, END_STREAM, 1, bytes(1 << 14)))
    c.ended(1)


@case("4.2", "DATA beyond SETTINGS_MAX_FRAME_SIZE is an error")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    most = (c.theirs or {}).get(frames.SettingsFrame.MAX_FRAME_SIZE, 1 << 14)
    if most < LARGEST_FRAME:
        c.send(frame(DATA, END_STREAM, 1, bytes(most + 1)))
        c.stream_error(1, FRAME_SIZE)


@case("4.2", "HEADERS beyond SETTINGS_MAX_FRAME_SIZE end the connection")
def _():
    c = Connection()
    most = (c.theirs or {}).get(frames.SettingsFrame.MAX_FRAME_SIZE, 1 << 14)
    if most < LARGEST_FRAME:
        block = c.block(request("GET", ("x-long", "x" * (most + 1))))
        c.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block))
        c.connection_error(FRAME_SIZE)


@case("4.3", "a block that can't be decompressed ends the connection")
def _():
    c = Connection()
    c.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x82\x86\x84\x40"))
    c.connection_error(COMPRESSION)


@case("4.3", "PRIORITY within a field block ends the connection")
def _():
    c = Connection()
    c.headers(1, flags=END_STREAM)
    c.send(frame(PRIORITY, 0, 1, struct.pack(">LB", 0, 15)))
    c.connection_error(PROTOCOL)


@case("4.3", "HEADERS of another stream within a field block end the connection")
def _():
    c = Connection()
    c.headers(1, flags=END_STREAM)
    c.headers(3)
    c.connection_error(PROTOCOL)


# --- 5 Streams


for _name, _kind, _payload in (
    ("DATA", DATA, b"x"),
    ("RST_STREAM", RST_STREAM, struct.pack(">L", CANCEL)),
    ("WINDOW_UPDATE", WINDOW_UPDATE, struct.pack(">L", 100)),
    ("CONTINUATION", CONTINUATION, b"\x82"),
):

    @case("5.1", f"{_name} on an idle stream ends the connection")
    def _(kind=_kind, payload=_payload):
        c = Connection()
        c.send(frame(kind, END_HEADERS if kind == CONTINUATION else 0, 1, payload))
        c.connection_error(PROTOCOL, STREAM_CLOSED)


@case("5.1", "PRIORITY on an idle stream is allowed")
def _():
    c = Connection()
    c.send(frame(PRIORITY, 0, 1, struct.pack(">LB", 0, 15)))
    c.headers(1)
    c.ended(1)


def _breaks(c, kind):
    """A frame that belongs to a request, when there is none any more."""
    if kind == DATA:
        c.send(frame(DATA, END_STREAM, 1, b"late"))
        c.stream_error(1, STREAM_CLOSED)
    elif kind == HEADERS:
        c.headers(1)
        c.stream_error(1, STREAM_CLOSED, PROTOCOL)
    else:
        c.send(frame(CONTINUATION, END_HEADERS, 1, c.block(request())))
        c.connection_error(STREAM_CLOSED, PROTOCOL)


for _name, _kind in (("DATA", DATA), ("HEADERS", HEADERS), ("CONTINUATION", CONTINUATION)):

    @case("5.1", f"{_name} behind END_STREAM is an error")
    def _(kind=_kind):
        c = Connection()
        c.headers(1)
        _breaks(c, kind)

    @case("5.1", f"{_name} behind RST_STREAM is an error")
    def _(kind=_kind):
        c = Connection()
        c.headers(1, request("POST"), END_HEADERS)
        c.send(frame(RST_STREAM, 0, 1, struct.pack(">L", CANCEL)))
        _breaks(c, kind)

    @case("5.1", f"{_name} behind a whole exchange is an error")
    def _(kind=_kind):
        c = Connection()
        c.headers(1)
        c.ended(1)
        _breaks(c, kind)


@case("5.1", "WINDOW_UPDATE and RST_STREAM behind a whole exchange are ignored")
def _():
    c = Connection()
    c.headers(1)
    c.ended(1)
    c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", 1)) + frame(RST_STREAM, 0, 1, struct.pack(">L", CANCEL)))
    c.alive()


@case("5.1.1", "a stream with an even number ends the connection")
def _():
    c = Connection()
    c.headers(2)
    c.connection_error(PROTOCOL)


@case("5.1.1", "a stream with a smaller number than another ends the connection")
def _():
    c = Connection()
    c.headers(5)
    c.ended(5)
    c.headers(3)
    c.connection_error(PROTOCOL, STREAM_CLOSED)


@case("5.1.2", "streams beyond SETTINGS_MAX_CONCURRENT_STREAMS are refused")
def _():
    c = Connection()
    most = (c.theirs or {}).get(frames.SettingsFrame.MAX_CONCURRENT_STREAMS)
    if not most:
        raise Failed("there is no limit")
    for stream in range(1, 2 * most + 3, 2):
        c.headers(stream, request("POST"), END_HEADERS)
    c.stream_error(2 * most + 1, REFUSED, PROTOCOL)


@case("5.3.1", "the deprecated priorities of RFC 7540 do no harm")
def _():
    c = Connection()
    c.send(frame(PRIORITY, 0, 3, struct.pack(">LB", 1, 255)) + frame(PRIORITY, 0, 1, struct.pack(">LB", 1 << 31, 0)))
    c.headers(1)
    c.ended(1)


@case("5.4.1", "the connection is closed behind an error")
def _():
    c = Connection()
    c.send(frame(PING, 0, 0, bytes(6)))
    with contextlib.suppress(Closed):
        while True:
            c.read()


@case("5.4.2", "after an error of one stream the others go on")
def _():
    c = Connection()
    c.headers(1, request("GET", ("transfer-encoding", "chunked")))
    c.malformed(1)
    c.headers(3)
    c.ended(3)


@case("5.5", "an unknown frame within a field block ends the connection")
def _():
    c = Connection()
    block = c.block(request())
    c.send(frame(HEADERS, END_STREAM, 1, block[:4]) + frame(0x16, 0, 1, b"x"))
    c.send(frame(CONTINUATION, END_HEADERS, 1, block[4:]))
    c.connection_error(PROTOCOL)


# --- 6 Frame types


for _section, _name, _bytes in (
    ("6.1", "DATA", frame(DATA, END_STREAM, 0, b"x")),
    ("6.2", "HEADERS", frame(HEADERS, END_STREAM | END_HEADERS, 0, b"\x82\x86\x84")),
    ("6.3", "PRIORITY", frame(PRIORITY, 0, 0, struct.pack(">LB", 0, 15))),
    ("6.4", "RST_STREAM", frame(RST_STREAM, 0, 0, struct.pack(">L", CANCEL))),
    ("6.10", "CONTINUATION", frame(CONTINUATION, END_HEADERS, 0, b"\x82")),
):

    @case(_section, f"{_name} on stream 0 ends the connection")
    def _(data=_bytes):
        c = Connection()
        c.send(data)
        c.connection_error(PROTOCOL)


for _section, _name, _bytes in (
    ("6.5", "SETTINGS", frame(SETTINGS, 0, 1, setting({3: 100}))),
    ("6.7", "PING", frame(PING, 0, 1, bytes(8))),
    ("6.8", "GOAWAY", frame(GOAWAY, 0, 1, bytes(8))),
):

    @case(_section, f"{_name} on a stream ends the connection")
    def _(data=_bytes):
        c = Connection()
        c.send(data)
        c.connection_error(PROTOCOL)


@case("6.1", "DATA with more padding than there is ends the connection")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(DATA, END_STREAM | PADDED, 1, b"\x06data"))
    c.connection_error(PROTOCOL)


@case("6.2", "HEADERS with more padding than there is end the connection")
def _():
    c = Connection()
    block = c.block(request())
    c.send(frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, bytes([len(block) + 1]) + block))
    c.connection_error(PROTOCOL)


for _section, _name, _bytes, _stream in (
    ("6.3", "PRIORITY", frame(PRIORITY, 0, 1, bytes(4)), 1),
    ("6.4", "RST_STREAM", frame(RST_STREAM, 0, 1, bytes(3)), None),
    ("6.5", "SETTINGS", frame(SETTINGS, 0, 0, bytes(3)), None),
    ("6.5", "an acknowledging SETTINGS with something in it", frame(SETTINGS, ACK, 0, bytes(6)), None),
    ("6.7", "PING", frame(PING, 0, 0, bytes(6)), None),
    ("6.9", "WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, bytes(3)), None),
):

    @case(_section, f"{_name} of a wrong length is an error")
    def _(data=_bytes, stream=_stream):
        c = Connection()
        c.headers(1, request("POST"), END_HEADERS)
        c.send(data)
        if stream:
            c.stream_error(stream, FRAME_SIZE)
        else:
            c.connection_error(FRAME_SIZE)


for _name, _setting, _value, _code in (
    ("ENABLE_PUSH of 2", 2, 2, PROTOCOL),
    ("INITIAL_WINDOW_SIZE of 2^31", 4, 1 << 31, FLOW_CONTROL),
    ("MAX_FRAME_SIZE below 2^14", 5, (1 << 14) - 1, PROTOCOL),
    ("MAX_FRAME_SIZE of 2^24", 5, 1 << 24, PROTOCOL),
    ("ENABLE_CONNECT_PROTOCOL of 2", 8, 2, PROTOCOL),
):

    @case("6.5.2", f"SETTINGS_{_name} ends the connection")
    def _(name=_setting, value=_value, code=_code):
        c = Connection()
        c.send(frame(SETTINGS, 0, 0, setting({name: value})))
        c.connection_error(code)


@case("6.5.2", "an unknown setting is ignored")
def _():
    c = Connection()
    c.send(frame(SETTINGS, 0, 0, setting({0xFF: 1})))
    c.alive()


@case("6.5.3", "SETTINGS are acknowledged")
def _():
    c = Connection()
    c.send(frame(SETTINGS, 0, 0, setting({3: 100})))
    for _ in range(2):
        c.until(lambda got: isinstance(got, frames.SettingsFrame) and "ACK" in got.flags)


@case("6.5.3", "of two values of a setting the last counts")
def _():
    c = Connection()
    c.send(frame(SETTINGS, 0, 0, setting({4: 100}) + setting({4: 1})))
    c.headers(1)
    c.answered(1)
    got = c.until(lambda got: isinstance(got, frames.DataFrame))
    if len(got.data) != 1:
        raise Failed(f"{len(got.data)} bytes")


@case("6.6", "a client's PUSH_PROMISE ends the connection")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">L", 2) + c.block(request())))
    c.connection_error(PROTOCOL)


@case("6.7", "PING is answered with what it held")
def _():
    Connection().alive()


@case("6.7", "an acknowledging PING is not answered")
def _():
    c = Connection()
    c.send(frame(PING, ACK, 0, b"nobody's") + frame(PING, 0, 0, b"somebody"))
    got = c.until(lambda got: isinstance(got, frames.PingFrame))
    if got.opaque_data != b"somebody":
        raise Failed("it was")


@case("6.8", "what began before GOAWAY is answered")
def _():
    c = Connection()
    c.headers(1)
    c.send(frame(GOAWAY, 0, 0, struct.pack(">LL", 0, NO_ERROR)))
    c.ended(1)


@case("6.9", "WINDOW_UPDATE by 0 of the connection ends it")
def _():
    c = Connection()
    c.send(frame(WINDOW_UPDATE, 0, 0, bytes(4)))
    c.connection_error(PROTOCOL)


@case("6.9", "WINDOW_UPDATE by 0 of a stream is its error")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(WINDOW_UPDATE, 0, 1, bytes(4)))
    c.stream_error(1, PROTOCOL)


@case("6.9.1", "a window is never exceeded")
def _():
    c = Connection({4: 1})
    c.headers(1)
    c.answered(1)
    got = c.until(lambda got: isinstance(got, frames.DataFrame))
    if len(got.data) != 1:
        raise Failed(f"{len(got.data)} bytes")
    c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", 1)))
    got = c.until(lambda got: isinstance(got, frames.DataFrame))
    if len(got.data) != 1:
        raise Failed(f"{len(got.data)} bytes")


@case("6.9.1", "a connection's window beyond 2^31-1 ends it")
def _():
    c = Connection()
    for _ in range(2):
        c.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", (1 << 31) - 1)))
    c.connection_error(FLOW_CONTROL)


@case("6.9.1", "a stream's window beyond 2^31-1 is its error")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    for _ in range(2):
        c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", (1 << 31) - 1)))
    c.stream_error(1, FLOW_CONTROL)


@case("6.9.2", "SETTINGS_INITIAL_WINDOW_SIZE changes the windows of open streams")
def _():
    c = Connection({4: 0})
    c.headers(1)
    c.answered(1)
    c.send(frame(SETTINGS, 0, 0, setting({4: 1})))
    got = c.until(lambda got: isinstance(got, frames.DataFrame))
    if len(got.data) != 1:
        raise Failed(f"{len(got.data)} bytes")


@case("6.9.2", "a window may become negative, and nothing is sent until it is not")
def _():
    c = Connection({4: 3})
    c.headers(1)
    c.answered(1)
    got = c.until(lambda got: isinstance(got, frames.DataFrame))
    if len(got.data) != 3:
        raise Failed(f"{len(got.data)} bytes at first")
    c.send(frame(SETTINGS, 0, 0, setting({4: 2})) + frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", 1)))
    c.alive()
    c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", 1)))
    got = c.until(lambda got: isinstance(got, frames.DataFrame))
    if len(got.data) != 1:
        raise Failed(f"{len(got.data)} bytes then")


@case("6.9.2", "SETTINGS_INITIAL_WINDOW_SIZE that takes a window beyond 2^31-1 ends the connection")
def _():
    c = Connection({4: 0})
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", (1 << 31) - 1)))
    c.send(frame(SETTINGS, 0, 0, setting({4: 1})))
    c.connection_error(FLOW_CONTROL)


@case("6.10", "DATA within a field block ends the connection")
def _():
    c = Connection()
    c.headers(1, request("POST"), 0)
    c.send(frame(DATA, END_STREAM, 1, b"x"))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION behind END_HEADERS ends the connection")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(CONTINUATION, END_HEADERS, 1, c.block([("x", "y")])))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION behind a CONTINUATION with END_HEADERS ends the connection")
def _():
    c = Connection()
    c.headers(1, request("POST"), 0)
    for _ in range(2):
        c.send(frame(CONTINUATION, END_HEADERS, 1, c.block([("x", "y")])))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION of another stream ends the connection")
def _():
    c = Connection()
    c.headers(1, request("POST"), 0)
    c.send(frame(CONTINUATION, END_HEADERS, 3, c.block([("x", "y")])))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION without end is not read for ever")
def _():
    c = Connection()
    c.headers(1, flags=END_STREAM)
    piece = c.block([("x-" + "n" * 100, "v" * 10_000)])
    for _ in range(200):
        c.send(frame(CONTINUATION, 0, 1, piece))
    c.stream_error(1, PROTOCOL, INTERNAL, CALM, COMPRESSION, or_status="431")


@case("7", "an unknown error code in RST_STREAM has no effect")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(RST_STREAM, 0, 1, struct.pack(">L", 0xFF)))
    c.alive()


@case("7", "an unknown error code in GOAWAY has no effect")
def _():
    c = Connection()
    c.headers(1)
    c.send(frame(GOAWAY, 0, 0, struct.pack(">LL", 0, 0xFF)))
    c.ended(1)


# --- 8 HTTP


@case("8.1", "HEADERS behind a body that do not end the stream are malformed")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(DATA, 0, 1, b"data"))
    c.headers(1, [("x-a", "b")], END_HEADERS)
    c.malformed(1)


for _title, _length, _pieces in (
    ("more", "1", (b"four",)),
    ("less", "9", (b"four",)),
    ("more in two pieces", "5", (b"four", b"more")),
    ("less in two pieces", "9", (b"four", b"more")),
):

    @case("8.1.1", f"{_title} than Content-Length says is malformed")
    def _(length=_length, pieces=_pieces):
        c = Connection()
        c.headers(1, request("POST", ("content-length", length)), END_HEADERS)
        for at, piece in enumerate(pieces):
            c.send(frame(DATA, END_STREAM if at == len(pieces) - 1 else 0, 1, piece))
        c.malformed(1)


@case("8.1.1", "a length without a body is malformed")
def _():
    c = Connection()
    c.headers(1, request("POST", ("content-length", "4")))
    c.malformed(1)


for _title, _name, _value in (
    ("a name in upper case", b"X-Upper", b"1"),
    ("a space in a name", b"x y", b"1"),
    ("a colon in a name", b"x:y", b"1"),
    ("a control byte in a name", b"x\x01", b"1"),
    ("a byte beyond ASCII in a name", b"x\xff", b"1"),
    ("a line break in a value", b"x-a", b"1\r\nx-user-id: 1"),
    ("a zero byte in a value", b"x-a", b"1\x002"),
    ("an empty name", b"", b"1"),
):

    @case("8.2.1", f"{_title} is malformed")
    def _(name=_name, value=_value):
        c = Connection()
        c.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, c.block(request()) + literal(name, value)))
        c.stream_error(1, PROTOCOL, COMPRESSION, or_status="400")


for _name, _value in (
    ("connection", "keep-alive"),
    ("proxy-connection", "keep-alive"),
    ("keep-alive", "timeout=5"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "h2c"),
):

    @case("8.2.2", f"{_name} is malformed")
    def _(name=_name, value=_value):
        c = Connection()
        c.headers(1, request("GET", (name, value)))
        c.malformed(1)


@case("8.2.2", "te with anything but trailers is malformed")
def _():
    c = Connection()
    c.headers(1, request("GET", ("te", "trailers, deflate;q=0.5")))
    c.malformed(1)


@case("8.2.2", "te with trailers is allowed")
def _():
    c = Connection()
    c.headers(1, request("GET", ("te", "trailers")))
    c.ended(1)


@case("8.2.3", "a cookie in several fields is allowed")
def _():
    c = Connection()
    c.headers(1, request("GET", ("cookie", "a=b"), ("cookie", "c=d")))
    c.ended(1)


@case("8.3", "an unknown pseudo field is malformed")
def _():
    c = Connection()
    c.headers(1, [(":test", "1"), *request()])
    c.malformed(1)


@case("8.3", "a pseudo field of answers is malformed")
def _():
    c = Connection()
    c.headers(1, [(":status", "200"), *request()])
    c.malformed(1)


@case("8.3", "a pseudo field behind others is malformed")
def _():
    c = Connection()
    fields = request()
    c.headers(1, [*fields[:-1], ("x-a", "b"), fields[-1]])
    c.malformed(1)


@case("8.3", "a pseudo field among trailers is malformed")
def _():
    c = Connection()
    c.headers(1, request("POST"), END_HEADERS)
    c.send(frame(DATA, 0, 1, b"data"))
    c.headers(1, [(":method", "POST")])
    c.malformed(1)


for _name in ("method", "scheme", "path"):

    @case("8.3.1", f"a request without :{_name} is malformed")
    def _(name=_name):
        c = Connection()
        c.headers(1, request(**{name: None}))
        c.malformed(1)

    @case("8.3.1", f"a request with :{_name} twice is malformed")
    def _(name=_name):
        c = Connection()
        fields = request()
        twice = next(field for field in fields if field[0] == ":" + name)
        c.headers(1, [twice, *fields])
        c.malformed(1)


@case("8.3.1", "an empty :path is malformed")
def _():
    c = Connection()
    c.headers(1, request(path=""))
    c.malformed(1)


@case("8.3.1", "a :path that does not begin with a slash is malformed")
def _():
    c = Connection()
    c.headers(1, request(path="public/x"))
    c.malformed(1)


@case("8.3.1", "a Host that differs from :authority is refused")
def _():
    c = Connection()
    c.headers(1, request("GET", ("host", "elsewhere.example")))
    c.malformed(1)


@case("8.5", "CONNECT with :path and :scheme, but without :protocol, is malformed")
def _():
    c = Connection()
    c.headers(1, request("CONNECT"))
    c.malformed(1)


@case("8.5", "CONNECT is no way out")
def _():
    c = Connection()
    c.headers(1, request("CONNECT", scheme=None, path=None), END_HEADERS)
    got = c.until(lambda got: isinstance(got, (frames.HeadersFrame, frames.RstStreamFrame)) and got.stream_id == 1)
    if isinstance(got, frames.HeadersFrame) and not got.fields[":status"].startswith("4"):
        raise Failed(got.fields[":status"])


@case("8441-3", ":protocol on anything but CONNECT is malformed")
def _():
    c = Connection()
    c.headers(1, [(":protocol", "websocket"), *request()])
    c.malformed(1)


# --- RFC 7541, HPACK

for _section, _title, _bytes in (
    ("2.3.3", "an index beyond the tables", b"\xff\x80\x01"),
    ("2.3.3", "a name's index beyond the tables", b"\x7f\xff\x01\x01x"),
    ("4.2", "a table's size behind fields", None),
    ("5.1", "an integer without end", b"\xff" + b"\xff" * 12 + b"\x01"),
    ("5.2", "a string longer than its block", b"\x00\x01x\x7fshort"),
    ("5.2", "padding of a Huffman code with zeroes", b"\x00\x01x\x81\x00"),
    ("5.2", "padding of a Huffman code by more than 7 bits", b"\x00\x01x\x82\x1f\xff"),
    ("5.2", "the end-of-string symbol in a Huffman code", b"\x00\x01x\x84\xff\xff\xff\xff"),
    ("6.1", "index 0", b"\x80"),
    ("6.3", "a table larger than SETTINGS_HEADER_TABLE_SIZE", None),
):

    @case(f"7541-{_section}", f"{_title} ends the connection")
    def _(title=_title, data=_bytes):
        c = Connection()
        block = c.block(request())
        if title.startswith("a table's"):
            block = block + b"\x20"
        elif title.startswith("a table larger"):
            block = b"\x3f\xff\xff\xff\x07" + block
        else:
            block = block + data
        c.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block))
        c.connection_error(COMPRESSION)


@case("7541-4.2", "a smaller table in front of fields is allowed")
def _():
    c = Connection()
    c.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x20" + c.block(request())))
    c.ended(1)


@case("7541-6", "every form of a field is read")
def _():
    c = Connection()
    host = AUTHORITY.encode()
    path = PATH.encode()
    block = (
        b"\x82\x86"
        + b"\x41" + bytes([len(host)]) + host
        + b"\x04" + bytes([len(path)]) + path
        + b"\x10\x03x-a\x01b"
        + b"\x40\x03x-c\x01d"
        + b"\xbe"
        + hpack.Encoder().encode([("x-huffman", "compressed")], huffman=True)
    )
    c.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block))
    c.ended(1)


def run(of):
    section, title, check = of
    wrong = None
    try:
        check()
    except Closed:
        wrong = "the connection was closed"
    except (Failed, AssertionError) as failed:
        wrong = str(failed) or "no body"
    if title in BORNE:
        wrong = None if wrong else "it passes: take it off the list of what is borne"
    return section, title, wrong


def main():
    global ADDRESS, AUTHORITY, PATH
    address, AUTHORITY, PATH = sys.argv[1:]
    host, port = address.rsplit(":", 1)
    ADDRESS = (host, int(port))
    failed = 0
    with ThreadPoolExecutor(8) as several:
        for section, title, wrong in several.map(run, CASES):
            failed += bool(wrong)
            why = f": {wrong}" if wrong else f" (borne: {BORNE[title]})" if title in BORNE else ""
            print(f"{'not ok' if wrong else 'ok'} {section} {title}{why}")
    print(f"{len(CASES) - failed} of {len(CASES)} cases passed")
    return bool(failed or not CASES)


if __name__ == "__main__":
    sys.exit(main())
