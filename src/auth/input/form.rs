//! Forms, as browsers send them: `application/x-www-form-urlencoded` of the WHATWG's URL standard.
//!
//! `url` reads them too, but in several steps, each of which leaves a copy of the text behind. Passwords come this way;
//! so each text is decoded once, into memory that is not moved while it grows.

use memchr::memchr;
use zeroize::Zeroize;

/// Names and values, in order.
pub(super) fn pairs(body: &[u8]) -> impl Iterator<Item = (String, String)> {
    let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let at = memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(at).unwrap_or((pair, &[]));
        (decoded(name), decoded(value.get(1..).unwrap_or_default()))
    })
}

/// What is no UTF-8 becomes U+FFFD, and what is no escape stays as it is.
fn decoded(text: &[u8]) -> String {
    // Nothing gets longer.
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match (byte, behind) {
            (b'+', _) => b' ',
            (b'%', [high, low, behind @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = behind;
                    high << 4 | low
                }
                _ => byte,
            },
            _ => byte,
        });
    }
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let mut bytes = error.into_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        bytes.zeroize();
        text
    })
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8]) -> Vec<(String, String)> {
        pairs(body).collect()
    }

    fn as_url_reads(body: &[u8]) -> Vec<(String, String)> {
        url::form_urlencoded::parse(body).into_owned().collect()
    }

    #[test]
    fn escapes_plus_signs_and_what_is_neither_are_read() {
        let body = b"email=ada%40example.com&password=a+b%2Bc%&&=&x&bad=%ff%zz%4";
        let expected = [
            ("email", "ada@example.com"),
            ("password", "a b+c%"),
            ("", ""),
            ("x", ""),
            ("bad", "\u{fffd}%zz%4"),
        ];
        assert_eq!(
            read(body),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(read(body), as_url_reads(body));
    }

    proptest! {
        #[test]
        fn a_form_is_read_as_the_url_crate_reads_it(body in "[ -~]{0,60}|([a-c%+=&0-9A-F]|%[0-9a-f]{2}){0,60}") {
            prop_assert_eq!(read(body.as_bytes()), as_url_reads(body.as_bytes()));
        }

        #[test]
        fn so_are_any_bytes(body in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(read(&body), as_url_reads(&body));
        }
    }
}
