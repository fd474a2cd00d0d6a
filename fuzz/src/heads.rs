//! Property: what stands in front of the HTTP parser leaves clean messages as they are, wherever reads end, and lets no
//! bare line feed and no fragment through to it. The input is what a client sends on a connection.

use oracle::http1::{self, Doubt, Read};
use vestibule::proxy::head_guard::HeadGuard;

pub fn holds(input: &[u8]) {
    let whole = seen(input, input.len().max(1));
    let mut at = 0;
    let end = loop {
        match http1::read(&input[at..]) {
            Read::Whole(request, length) => {
                at += length;
                if request.has(b"upgrade") || request.doubt == Some(Doubt::TwoFramings) {
                    // What follows may be a tunnel, or is never read (RFC 9112, 6.1).
                    return assert_eq!(&whole[..at], &input[..at]);
                }
            }
            other => break other,
        }
    };
    assert_eq!(
        whole[..at].escape_ascii().to_string(),
        input[..at].escape_ascii().to_string(),
        "a clean message was changed"
    );
    if let Read::Malformed("a bare line feed") = end
        && is_all_that_is_wrong(&input[at..])
        && !is_chunked(&input[at..])
    {
        assert!(
            whole[at..].contains(&0),
            "a bare line feed came through: {}",
            whole[at..].escape_ascii()
        );
    }
    for size in [1, 2, 7, 100] {
        let pieces = seen(input, size);
        let refused = pieces.iter().zip(input).position(|(after, before)| after != before);
        // Behind what is refused nothing is read. A line that comes in pieces may be refused where one in a piece is not.
        let until = refused.unwrap_or(input.len());
        let refused_whole = whole.iter().zip(input).position(|(after, before)| after != before);
        assert!(
            until <= refused_whole.unwrap_or(input.len()),
            "in pieces of {size} more comes through"
        );
        if input.split(|byte| *byte == b'\n').all(|line| line.len() <= 64) {
            assert_eq!(refused, refused_whole, "in pieces of {size}");
        }
    }
}

/// Whether the message, with its line ends mended, would be one: else the parser refuses it for another reason, and perhaps
/// before.
fn is_all_that_is_wrong(message: &[u8]) -> bool {
    let Some(bare) = (0..message.len()).find(|at| message[*at] == b'\n' && (*at == 0 || message[*at - 1] != b'\r'))
    else {
        return false;
    };
    let mended = [&message[..bare], b"\r", &message[bare..]].concat();
    !matches!(http1::read(&mended[..bare + 2]), Read::Malformed(_)) && !contains(&mended[..bare], b"upgrade")
}

/// In a chunk's line the parser itself refuses a bare line feed.
fn is_chunked(message: &[u8]) -> bool {
    contains(message, b"chunked")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

fn seen(input: &[u8], size: usize) -> Vec<u8> {
    let mut guard = HeadGuard::default();
    let mut bytes = input.to_vec();
    for piece in bytes.chunks_mut(size) {
        guard.look(piece);
    }
    bytes
}
