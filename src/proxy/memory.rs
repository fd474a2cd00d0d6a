//! What the last request on a connection said, so that the same words need not be judged again.
//!
//! Who calls follows from the connection and `Host`; with which credentials, from `Cookie` and `Authorization`. A client
//! repeats these with every request, byte by byte. Remembered is what those very bytes mean to the configuration in
//! force: whose signature is good, what upstreams see of them. Whether the session that they stand for is live is asked
//! for each request anew (`session`), so that nothing is remembered that could be revoked.
//!
//! Connections of trusted proxies have no memory: each of their requests may be somebody else's. Nor are long lines
//! remembered ([`MAX_KEPT`]): ten thousand idle connections would hold several times what their clients once sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header};

use super::{Inbound, caller::Caller};
use crate::{
    live::{Era, Snapshot},
    policy::{
        client::{self, HostError},
        connection::Connection,
        marks::Marks,
    },
    session::credential::{Cut, Found, SessionCookies, Shared},
};

/// The longest lines that are remembered, all of a request together. Of each there are up to three copies: the words,
/// what is left of them, and all of them if the browser is shared. Longer ones are judged with every request.
const MAX_KEPT: usize = 4 * 1024;

/// One connection's. The requests of HTTP/2 share it; each holds it for no longer than it takes to look.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    caller: Option<(Era, Words, Arc<Caller>)>,
    shown: Option<(Era, [Option<Words>; 2], Arc<Shown>)>,
}

/// The credentials of a request, what is left of its cookies without ours, and all of them if its browser is shared.
#[derive(Debug)]
pub struct Shown {
    pub found: Found,
    pub left: Cut,
    pub browser: Option<Shared>,
}

/// Bytes that a client sent. They may be secret.
struct Words(Box<[u8]>);

impl Memory {
    /// Who sends the request whose head is `version`, `uri` and `headers`.
    pub fn caller(
        &self,
        live: &Snapshot,
        connection: &Connection,
        (version, uri, headers): (Version, &Uri, &HeaderMap),
    ) -> Result<Arc<Caller>, HostError> {
        let asked = asked(version, uri, headers);
        if let Some(asked) = asked
            && let Some((era, words, caller)) = &self.lock().caller
            && *era == live.era
            && words.are(asked)
        {
            return Ok(Arc::clone(caller));
        }
        let mut facts = client::judge(connection, version, uri, headers, &live.clients)?;
        let Some(asked) = asked.filter(|_| !facts.trusted_peer) else {
            return Ok(Arc::new(Caller::new(facts, headers)));
        };
        // What is kept must not keep the buffer that it came in.
        facts.host = facts.host.unshared();
        let caller = Arc::new(Caller::new(facts, headers));
        self.lock().caller = Some((live.era, Words::of(asked), Arc::clone(&caller)));
        Ok(caller)
    }

    /// What a request shows.
    pub fn shown(&self, live: &Snapshot, inbound: &Inbound) -> Arc<Shown> {
        let headers = &inbound.headers;
        let said = [
            (header::COOKIE, Marks::COOKIE),
            (header::AUTHORIZATION, Marks::AUTHORIZATION),
        ]
        .map(|(name, mark)| {
            if inbound.marks.has(mark) {
                only(headers, &name)
            } else {
                Line::None
            }
        });
        let [Line::None | Line::One(_), Line::None | Line::One(_)] = said else {
            return Arc::new(Shown::of(&live.cookies, headers));
        };
        if let Some((era, words, shown)) = &self.lock().shown
            && *era == live.era
            && words.iter().zip(&said).all(|(words, said)| said.is(words.as_ref()))
        {
            return Arc::clone(shown);
        }
        let shown = Arc::new(Shown::of(&live.cookies, headers));
        if !inbound.caller.facts.trusted_peer && said.iter().map(Line::len).sum::<usize>() <= MAX_KEPT {
            let words = said.map(Line::words);
            self.lock().shown = Some((live.era, words, Arc::clone(&shown)));
        }
        shown
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    pub fn of(cookies: &SessionCookies, headers: &HeaderMap) -> Self {
        Self {
            found: cookies.find(headers),
            left: left_of_cookies(cookies, headers),
            browser: cookies.shared(headers),
        }
    }
}

/// The host that a request asks for, if nothing else has a say in which it is.
fn asked<'r>(version: Version, uri: &'r Uri, headers: &'r HeaderMap) -> Option<&'r [u8]> {
    match (uri.authority(), only(headers, &header::HOST)) {
        (None, Line::One(host)) => Some(host),
        (Some(authority), Line::None) if version == Version::HTTP_2 => Some(authority.as_str().as_bytes()),
        _ => None,
    }
}

/// The lines of one name.
#[derive(Clone, Copy)]
enum Line<'h> {
    None,
    One(&'h [u8]),
    Several,
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Line<'h> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Line::None,
        (Some(line), None) => Line::One(line.as_bytes()),
        (Some(_), Some(_)) => Line::Several,
    }
}

impl Line<'_> {
    fn is(&self, words: Option<&Words>) -> bool {
        match (self, words) {
            (Self::None, None) => true,
            (Self::One(line), Some(words)) => words.are(line),
            _ => false,
        }
    }

    const fn len(&self) -> usize {
        match self {
            Self::One(line) => line.len(),
            Self::None | Self::Several => 0,
        }
    }

    fn words(self) -> Option<Words> {
        match self {
            Self::One(line) => Some(Words::of(line)),
            Self::None | Self::Several => None,
        }
    }
}

impl Words {
    fn of(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Looks at all bytes, wherever the first differs: who shares the connection with whoever said them, behind a proxy
    /// that nobody told us of, must not find them out one by one.
    fn are(&self, bytes: &[u8]) -> bool {
        self.0.len() == bytes.len() && self.0.iter().zip(bytes).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Words(..)")
    }
}

/// What upstreams see of the cookies. Several lines become one, as an upstream may read only the first.
fn left_of_cookies(cookies: &SessionCookies, headers: &HeaderMap) -> Cut {
    let mut lines = headers.get_all(header::COOKIE).iter();
    match (lines.next(), lines.next()) {
        (None, _) => return Cut::Unchanged,
        (Some(only), None) => return cookies.cut_out(only),
        (Some(_), Some(_)) => {}
    }
    let mut joined = BytesMut::new();
    for line in headers.get_all(header::COOKIE) {
        let rest = match cookies.cut_out(line) {
            Cut::Unchanged => line.clone(),
            Cut::Rest(rest) => rest,
            Cut::Nothing => continue,
        };
        if !joined.is_empty() && !rest.is_empty() {
            joined.put_slice(b"; ");
        }
        joined.put_slice(rest.as_bytes());
    }
    match HeaderValue::from_maybe_shared(joined.freeze()) {
        Ok(joined) if !joined.is_empty() => Cut::Rest(joined),
        _ => Cut::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_whole() {
        let words = Words::of(b"session=abc");
        assert!(words.are(b"session=abc"));
        for other in [&b"session=abd"[..], b"Session=abc", b"session=ab", b"session=abcd", b""] {
            assert!(!words.are(other), "{other:?}");
        }
    }

    #[test]
    fn a_line_is_known_again_only_if_it_is_the_only_one() {
        let mut headers = HeaderMap::new();
        assert!(only(&headers, &header::COOKIE).is(None));
        headers.append(header::COOKIE, HeaderValue::from_static("a=1"));
        let words = only(&headers, &header::COOKIE).words();
        assert!(only(&headers, &header::COOKIE).is(words.as_ref()));
        assert!(!only(&headers, &header::COOKIE).is(None));
        headers.append(header::COOKIE, HeaderValue::from_static("a=1"));
        assert!(!only(&headers, &header::COOKIE).is(words.as_ref()));
        assert!(!only(&headers, &header::AUTHORIZATION).is(words.as_ref()));
    }
}
