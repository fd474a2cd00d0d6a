//! When a request may be sent once more.
//!
//! - Nothing of it was sent: always, since nobody has heard of it.
//! - The endpoint says that it did not look at it (HTTP/2: RFC 9113, 8.7): always, if there is still all of it.
//! - Something was sent, and no byte of an answer came: only if doing it twice does no more than doing it once (RFC
//!   9110, 9.2.2) and it has no body, and only as often as the route allows.
//!
//! Never after an answer has begun, and never after a time-out: whoever is slow would only get more to do.

use std::error::Error;

use http::Method;

/// How often one request may be sent once more.
#[derive(Debug)]
pub(super) struct Budget {
    /// When something was sent.
    repeats: u32,
    /// When nobody has heard of it: more than that happens only where something is wrong.
    unheard: u32,
}

impl Budget {
    pub(super) const fn new(retries: u32) -> Self {
        Self {
            repeats: retries,
            unheard: 3,
        }
    }

    /// Whether it may be sent once more, which is then spent.
    pub(super) fn allows(&mut self, unheard: bool, method: &Method) -> bool {
        let left = if unheard {
            &mut self.unheard
        } else if method.is_idempotent() {
            &mut self.repeats
        } else {
            return false;
        };
        let allowed = *left > 0;
        *left = left.saturating_sub(1);
        allowed
    }
}

/// What came was an answer, if none in HTTP: asking again would not mend it.
pub(super) fn was_answered(error: &hyper::Error) -> bool {
    error.is_parse() || error.is_user()
}

/// An HTTP/2 endpoint said that it did not process the request: it refused the stream, or it goes away and named an
/// earlier stream as its last.
pub(super) fn was_not_processed(error: &hyper::Error) -> bool {
    let Some(cause) = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()) else {
        return false;
    };
    cause.is_remote() && (cause.is_go_away() || cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_of_is_repeated_only_if_that_is_safe() {
        let mut budget = Budget::new(1);
        assert!(!budget.allows(false, &Method::POST));
        assert!(budget.allows(false, &Method::PUT), "idempotent");
        assert!(!budget.allows(false, &Method::GET), "once only");
        assert!(budget.allows(true, &Method::POST), "nobody has heard of it");
    }

    #[test]
    fn nothing_is_tried_for_ever() {
        let mut budget = Budget::new(0);
        let times = (0..100).filter(|_| budget.allows(true, &Method::GET)).count();
        assert_eq!(times, 3);
    }
}
