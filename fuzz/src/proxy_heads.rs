//! Property: a PROXY header names whom its specification says, and ends where that says; or the connection is refused. The
//! input is what comes on the connection.

use oracle::proxy_head::{self, From, Header};
use vestibule::server::probe::{self, Source};

pub fn holds(input: &[u8]) {
    match (probe::proxy_header(input), proxy_head::read(input)) {
        (Ok(Some((came, length))), Header::Whole(due, end)) => {
            let came = match came {
                Source::Proxy => From::Itself,
                Source::Untold => From::Somebody,
                Source::Client(addr) => From::Address(addr),
            };
            assert_eq!((came, length), (due, end), "{}", input.escape_ascii());
        }
        // More may be refused than has to be, and at any time; what is refused was not whole before.
        (Err(_), _) | (Ok(None), Header::Unfinished | Header::Malformed) => {}
        (came, due) => panic!("{came:?} rather than {due:?}: {}", input.escape_ascii()),
    }
}
