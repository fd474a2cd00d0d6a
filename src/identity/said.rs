//! What was said of a session to upstreams lately, signed, and ready to be said again.
//!
//! It lives and dies with the cached session. One that is over, or that says who somebody was, is nowhere to be found; there
//! are as many at most as there are upstreams. Who signs, and what, is in `session::assertion`.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;

use crate::clock::Timestamp;

/// A signed statement about a session, made for one upstream.
#[derive(Clone)]
pub struct Assertion {
    audience: Arc<str>,
    /// With the scheme before it.
    bearer: HeaderValue,
    token: HeaderValue,
    /// Of the signing keys, when it was made.
    epoch: u64,
    said_until: Timestamp,
}

crate::secret::unprinted!(Assertion);

/// How a header has an assertion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wording {
    /// Alone.
    Token,
    /// As `Authorization` has a credential (RFC 6750, 2.1).
    Bearer,
}

impl Assertion {
    /// What a text begins with of which an assertion is made.
    pub const SCHEME: &str = "Bearer ";

    /// From a text that begins with [`Self::SCHEME`]; `None` if no header can hold it.
    pub fn new(audience: Arc<str>, text: String, epoch: u64, said_until: Timestamp) -> Option<Self> {
        // Both spellings share the text's memory.
        let text = Bytes::from(text);
        let of = |bytes: Bytes| {
            let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        Some(Self {
            audience,
            token: of(text.slice(Self::SCHEME.len()..))?,
            bearer: of(text)?,
            epoch,
            said_until,
        })
    }

    pub fn value(&self, wording: Wording) -> HeaderValue {
        match wording {
            Wording::Token => self.token.clone(),
            Wording::Bearer => self.bearer.clone(),
        }
    }
}

/// A session's assertions, the latest for each upstream. Nobody waits for anybody.
#[derive(Default)]
pub struct Assertions(ArcSwapOption<Vec<Assertion>>);

impl Assertions {
    /// What can still be said to `audience`, if its keys' `epoch` is that one.
    pub fn find(&self, audience: &str, wording: Wording, epoch: u64, now: Timestamp) -> Option<HeaderValue> {
        let said = self.0.load();
        let known = said.as_ref()?.iter().find(|known| *known.audience == *audience)?;
        (known.epoch == epoch && now < known.said_until).then(|| known.value(wording))
    }

    /// Keeps one in place of what is over and of what was said to its audience before. Of two at the same moment one is
    /// kept, and the other made again when it is asked for.
    pub fn keep(&self, assertion: &Assertion, now: Timestamp) {
        let said = self.0.load();
        let others = said.iter().flat_map(|said| said.iter()).filter(|other| {
            now < other.said_until && other.epoch == assertion.epoch && other.audience != assertion.audience
        });
        let kept = others.cloned().chain([assertion.clone()]).collect();
        self.0.store(Some(Arc::new(kept)));
    }
}

impl fmt::Debug for Assertions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Assertions({} kept)",
            self.0.load().as_ref().map_or(0, |said| said.len())
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn assertion(audience: &str, token: &str, epoch: u64, until: Timestamp) -> Assertion {
        Assertion::new(audience.into(), format!("Bearer {token}"), epoch, until).unwrap()
    }

    #[test]
    fn what_was_said_to_an_upstream_is_said_again_to_it_alone() {
        let later = NOW.plus(Duration::from_secs(30));
        let said = Assertions::default();
        assert_eq!(said.find("api", Wording::Token, 0, NOW), None);
        said.keep(&assertion("api", "a.b.c", 0, later), NOW);
        said.keep(&assertion("other", "d.e.f", 0, later), NOW);
        assert_eq!(said.find("api", Wording::Token, 0, NOW).unwrap(), "a.b.c");
        assert_eq!(said.find("api", Wording::Bearer, 0, NOW).unwrap(), "Bearer a.b.c");
        assert_eq!(said.find("other", Wording::Token, 0, NOW).unwrap(), "d.e.f");
        for nobody in ["ap", "api2", ""] {
            assert_eq!(said.find(nobody, Wording::Token, 0, NOW), None, "{nobody}");
        }
        assert_eq!(
            said.find("api", Wording::Token, 0, later),
            None,
            "half its life is over"
        );
        assert_eq!(said.find("api", Wording::Token, 1, NOW), None, "its key was withdrawn");
    }

    #[test]
    fn what_is_over_is_not_kept() {
        let later = NOW.plus(Duration::from_secs(30));
        let said = Assertions::default();
        said.keep(&assertion("gone", "a.b.c", 0, NOW.plus(Duration::from_secs(1))), NOW);
        said.keep(&assertion("api", "d.e.f", 0, later), NOW.plus(Duration::from_secs(1)));
        said.keep(&assertion("api", "g.h.i", 0, later), NOW.plus(Duration::from_secs(1)));
        assert_eq!(format!("{said:?}"), "Assertions(1 kept)");
    }

    #[test]
    fn an_assertion_does_not_print() {
        assert!(!format!("{:?}", assertion("api", "a.b.c", 0, NOW)).contains("a.b.c"));
    }
}
