//! Header fields as HTTP/1.1 writes them (RFC 9112, 5), ready to be sent.
//!
//! What is said with every request as it was with the one before is written once and copied from then on. [`Lines`] are
//! made of names and values that were checked when they became such: no value ends its line to begin another.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};

const BETWEEN: &[u8] = b": ";
const END: &[u8] = b"\r\n";

/// Whole lines, each with its end.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Lines(Vec<u8>);

impl Lines {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn put(&mut self, name: &HeaderName, value: &HeaderValue) {
        put(&mut self.0, name, value);
    }

    /// Without the memory that more lines would have needed.
    #[must_use]
    pub fn shrunk(mut self) -> Self {
        self.0.shrink_to_fit();
        self
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn iter(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
        read(&self.0)
    }
}

impl<'f> FromIterator<(&'f HeaderName, &'f HeaderValue)> for Lines {
    fn from_iter<I: IntoIterator<Item = (&'f HeaderName, &'f HeaderValue)>>(fields: I) -> Self {
        let mut lines = Self::new();
        for (name, value) in fields {
            lines.put(name, value);
        }
        lines.shrunk()
    }
}

/// Values may be secrets: names alone are shown.
impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// Writes one line.
pub fn put(bytes: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let name = name.as_str().as_bytes();
    bytes.reserve(name.len() + BETWEEN.len() + value.len() + END.len());
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(BETWEEN);
    bytes.extend_from_slice(value.as_bytes());
    bytes.extend_from_slice(END);
}

/// Lines that [`put`] wrote, taken apart again.
pub fn read(lines: &[u8]) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at_checked(colon)?;
        let name = HeaderName::from_bytes(name).ok()?;
        let mut value = HeaderValue::from_bytes(value.get(BETWEEN.len()..)?).ok()?;
        // HTTP/2 then keeps them out of its compression's memory (RFC 7541, 7.1.3).
        value.set_sensitive(matches!(name, header::AUTHORIZATION | header::COOKIE));
        Some((name, value))
    })
}

/// The same as a map.
pub fn to_map(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in read(lines) {
        map.append(name, value);
    }
    map
}

/// Leaves one of several lengths. Whoever read the message has seen to it that they agree (RFC 9110, 8.6); the next hop
/// might not.
pub fn join_lengths(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(line) = lines.next() else { return };
    let bytes = line.as_bytes();
    let end = memchr::memchr(b',', bytes);
    if lines.next().is_none() && end.is_none() {
        return;
    }
    let number = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    match HeaderValue::from_bytes(number.trim_ascii()) {
        Ok(number) => headers.insert(header::CONTENT_LENGTH, number),
        // A part of a value is one as well.
        Err(_) => headers.remove(header::CONTENT_LENGTH),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            fields in prop::collection::vec(("[a-z0-9!#$%&'*+.^_`|~-]{1,20}", prop::collection::vec(any::<u8>(), 0..30)), 0..8)
        ) {
            let fields: Vec<_> = fields
                .iter()
                .filter_map(|(name, value)| {
                    Some((name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).ok()?))
                })
                .collect();
            let lines: Lines = fields.iter().map(|(name, value)| (name, value)).collect();
            prop_assert_eq!(lines.iter().collect::<Vec<_>>(), fields);
        }
    }

    #[test]
    fn of_several_lengths_one_is_left() {
        for (lines, left) in [
            (&[][..], None),
            (&["5"][..], Some("5")),
            (&["5", "5"], Some("5")),
            (&["5, 5"], Some("5")),
            (&["5 ,5", "5"], Some("5")),
        ] {
            let lengths = lines
                .iter()
                .map(|line| (header::CONTENT_LENGTH, HeaderValue::from_static(line)));
            let mut headers = HeaderMap::new();
            lengths.for_each(|(name, value)| {
                headers.append(name, value);
            });
            join_lengths(&mut headers);
            let all: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
            assert_eq!(all, left.as_slice(), "{lines:?}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        let (name, value) = (header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        let lines: Lines = [(&name, &value)].into_iter().collect();
        assert_eq!(format!("{lines:?}"), r#"["authorization"]"#);
        assert!(lines.iter().all(|(_, value)| value.is_sensitive()));
    }
}
