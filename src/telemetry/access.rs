//! The access log: one line per request, off the data path.
//!
//! A request formats its line into a lane of its worker when its last byte has left.

use std::{
    io::{self, Write},
    net::IpAddr,
    time::Duration,
};

use http::{HeaderValue, StatusCode};

use super::lines::{self, LineWriter};
use crate::{clock::Timestamp, config::LogFormat, identity::UserId};

/// Who is to blame when a request failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Client,
    Gateway,
    Upstream,
}

impl Side {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// One request, for its line in the access log.
#[derive(Debug)]
pub struct Access<'a> {
    pub at: Timestamp,
    pub took: Duration,
    pub request_id: &'a HeaderValue,
    pub client: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    /// As routed, without the query; as received where it could not be.
    pub path: &'a str,
    pub status: StatusCode,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub user: Option<UserId>,
    /// The path pattern of the route that matched.
    pub route: Option<&'a str>,
    pub upstream: Option<&'a str>,
    /// The problem's code, and who is to blame; for an answer that broke off, after its status was sent.
    pub failure: Option<(&'static str, Side)>,
}

/// The access log of a whole gateway; each worker writes to a [`Lane`] of it.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    writer: LineWriter,
}

/// A worker's part of the access log.
#[derive(Clone, Debug)]
pub struct Lane {
    format: LogFormat,
    lines: lines::Lane<Gathered>,
}

impl AccessLog {
    /// Starts the thread that writes to `out`.
    pub fn start(format: LogFormat, out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = LineWriter::start("access-log", out)?;
        Ok(Self { format, writer })
    }

    /// A lane for one more worker.
    pub fn lane(&self) -> Lane {
        Lane {
            format: self.format,
            lines: self.writer.lane(),
        }
    }

    /// Lines that nobody will read.
    pub fn dropped(&self) -> u64 {
        self.writer.dropped()
    }
}

impl Lane {
    /// Adds the line of a request that has ended.
    pub fn write(&self, access: &Access<'_>) {
        self.lines.add(|gathered| match self.format {
            LogFormat::Json => access.write_json(&mut Line(gathered)),
            LogFormat::Text => access.write_text(&mut Line(gathered)),
        });
    }
}

impl Access<'_> {
    // Numbers and times are written by hand: through `fmt` a line would cost a tenth of the whole request.

    fn write_json(&self, out: &mut Line<'_>) {
        out.text("{\"timestamp\":\"");
        out.timestamp(self.at);
        out.text("\",\"request_id\":\"");
        out.bytes(self.request_id.as_bytes());
        out.text("\",\"client\":\"");
        out.address(self.client);
        out.text("\",\"method\":\"");
        out.escaped(self.method);
        out.text("\",\"host\":\"");
        out.escaped(self.host);
        out.text("\",\"path\":\"");
        out.escaped(self.path);
        out.text("\",\"status\":");
        out.number(self.status.as_u16().into());
        out.text(",\"duration_ms\":");
        out.millis(self.took);
        out.text(",\"bytes_in\":");
        out.number(self.bytes_in);
        out.text(",\"bytes_out\":");
        out.number(self.bytes_out);
        if let Some(user) = self.user {
            out.text(",\"user_id\":\"");
            out.text(user.0.hyphenated().encode_lower(&mut [0; 36]));
            out.text("\"");
        }
        if let Some(route) = self.route {
            out.text(",\"route\":\"");
            out.escaped(route);
            out.text("\"");
        }
        if let Some(upstream) = self.upstream {
            out.text(",\"upstream\":\"");
            out.escaped(upstream);
            out.text("\"");
        }
        if let Some((code, side)) = self.failure {
            out.text(",\"error\":\"");
            out.text(code);
            out.text("\",\"error_side\":\"");
            out.text(side.as_str());
            out.text("\"");
        }
        out.text("}\n");
    }

    fn write_text(&self, out: &mut Line<'_>) {
        out.timestamp(self.at);
        out.text(" ");
        out.number(self.status.as_u16().into());
        out.text(" ");
        out.escaped(self.method);
        out.text(" ");
        out.escaped(self.host);
        out.escaped(self.path);
        out.text(" ");
        out.millis(self.took);
        out.text("ms in=");
        out.number(self.bytes_in);
        out.text(" out=");
        out.number(self.bytes_out);
        out.text(" client=");
        out.address(self.client);
        out.text(" id=");
        out.bytes(self.request_id.as_bytes());
        if let Some(user) = self.user {
            out.text(" user=");
            out.text(user.0.hyphenated().encode_lower(&mut [0; 36]));
        }
        if let Some((code, side)) = self.failure {
            out.text(" error=");
            out.text(code);
            out.text(" side=");
            out.text(side.as_str());
        }
        out.text("\n");
    }
}
/// What a worker has gathered, and the second that it wrote last: most lines share theirs with the one before.
#[derive(Debug, Default)]
struct Gathered {
    lines: Vec<u8>,
    second: i64,
    /// `2026-11-21T07:15:08`
    second_text: String,
}

impl lines::Buffer for Gathered {
    fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }
}

/// Writes one line.
struct Line<'g>(&'g mut Gathered);

impl Line<'_> {
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.lines.extend_from_slice(bytes);
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [b'0'; 20];
        let mut length = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            length += 1;
            if number == 0 {
                break;
            }
        }
        let from = digits.len() - length;
        self.bytes(digits.get(from..).unwrap_or_default());
    }

    /// Three digits, leading zeros too.
    fn thousandths(&mut self, value: u64) {
        for divisor in [100, 10, 1] {
            self.number(value / divisor % 10);
        }
    }

    fn millis(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.number(micros / 1000);
        self.text(".");
        self.thousandths(micros % 1000);
    }

    /// As [`Timestamp::rfc3339`] writes it.
    fn timestamp(&mut self, at: Timestamp) {
        let second = at.micros().div_euclid(1_000_000);
        if second != self.0.second || self.0.second_text.is_empty() {
            self.0.second = second;
            let mut text = Timestamp::from_secs(second).rfc3339();
            text.truncate(text.len().saturating_sub(".000Z".len()));
            self.0.second_text = text;
        }
        let Gathered { lines, second_text, .. } = &mut *self.0;
        lines.extend_from_slice(second_text.as_bytes());
        self.text(".");
        self.thousandths(u64::try_from(at.micros().rem_euclid(1_000_000) / 1000).unwrap_or(0));
        self.text("Z");
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                for (at, octet) in v4.octets().into_iter().enumerate() {
                    if at > 0 {
                        self.text(".");
                    }
                    self.number(octet.into());
                }
            }
            // Writing to a vector does not fail.
            IpAddr::V6(v6) => {
                let _ = write!(self.0.lines, "{v6}");
            }
        }
    }

    /// Text that can neither end the line nor the JSON string, nor steer a terminal: all but visible ASCII is escaped.
    fn escaped(&mut self, text: &str) {
        // All of it, without an early end: so it takes many at once.
        let escapes = text.bytes().fold(0, |escapes, byte| {
            escapes | u8::from(!matches!(byte, b' '..=b'~')) | u8::from(matches!(byte, b'"' | b'\\'))
        });
        if escapes == 0 {
            self.text(text);
            return;
        }
        for c in text.chars() {
            match c {
                '"' | '\\' => self.bytes(&[b'\\', c as u8]),
                ' '..='~' => self.bytes(&[c as u8]),
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.0.lines, "\\u{unit:04x}");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::lines::Sink, *};

    fn logged(format: LogFormat, path: &str) -> String {
        let sink = Sink::default();
        let log = AccessLog::start(format, sink.clone()).unwrap();
        let lane = log.lane();
        lane.write(&Access {
            at: Timestamp::from_secs(0),
            took: Duration::from_micros(1500),
            request_id: &HeaderValue::from_static("r1"),
            client: IpAddr::from([127, 0, 0, 1]),
            method: "GET",
            host: "app.example.com",
            path,
            status: StatusCode::OK,
            bytes_in: 0,
            bytes_out: 12,
            user: None,
            route: Some("/api/*"),
            upstream: Some("api"),
            failure: Some(("UPSTREAM_TIMEOUT", Side::Upstream)),
        });
        drop(log);
        sink.text()
    }

    #[test]
    fn a_line_is_one_line_whatever_the_request_says() {
        let nasty = "/a\"b\\c\r\nforged \u{1b}[31m \u{202e}\u{1f600}";
        for format in [LogFormat::Json, LogFormat::Text] {
            let line = logged(format, nasty);
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.is_ascii() && !line.contains('\u{1b}'), "{line}");
        }
        let json: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json, nasty)).unwrap();
        assert_eq!(json["path"], nasty);
        assert_eq!(json["duration_ms"], 1.5);
        assert_eq!(json["error_side"], "upstream");
    }

    #[test]
    fn times_and_numbers_are_written_as_elsewhere() {
        let mut buffer = Gathered::default();
        for micros in [0, 1_795_245_308_894_999, 1_795_245_308_005_000, -1] {
            let at = Timestamp::from_micros(micros);
            buffer.lines.clear();
            Line(&mut buffer).timestamp(at);
            assert_eq!(String::from_utf8_lossy(&buffer.lines), at.rfc3339());
        }
        for number in [0, 9, 10, 12_345, u64::MAX] {
            buffer.lines.clear();
            Line(&mut buffer).number(number);
            assert_eq!(String::from_utf8_lossy(&buffer.lines), number.to_string());
        }
        for address in ["127.0.0.1", "255.0.10.9", "2001:db8::1"] {
            buffer.lines.clear();
            Line(&mut buffer).address(address.parse().unwrap());
            assert_eq!(String::from_utf8_lossy(&buffer.lines), address);
        }
    }
}
