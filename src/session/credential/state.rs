//! The cookies that bind a visit to a provider to the browser that it began in.
//!
//! What such a cookie holds is not `state` but a name for the browser, good for all its visits: so any number of tabs
//! are under way with one cookie. A browser that has none yet gets one in a *slot* drawn at random. Tabs that start at the
//! same moment, each without a cookie, then rarely overwrite what another was given; and however many start, a browser
//! is left with no more cookies than there are slots.
//!
//! They come back on a navigation from the provider's site, which `SameSite=Strict` would not let happen: they are among
//! those with the attributes for arrivals.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::{Cookie, SessionCookies, Spelling};
use crate::secret::{OAuthBrowser, OneTimeToken, random};

/// Before the name, within what is signed: so no other cookie of ours can stand in for this one, nor this one for another,
/// since no token has a colon in it.
const MARK: &str = "oauth:";

/// Where, of several places, a browser keeps such a cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot(usize);

impl Slot {
    /// As many cookies a browser is left with, at most.
    pub const ALL: usize = 8;

    pub fn drawn() -> Self {
        let [byte] = random::<1>();
        Self(usize::from(byte) % Self::ALL)
    }
}

#[derive(Clone, Debug)]
pub(super) struct StateCookies {
    slots: [Cookie; Slot::ALL],
}

impl StateCookies {
    pub(super) fn new(cookie: impl Fn(&str) -> Cookie) -> Self {
        Self {
            slots: std::array::from_fn(|slot| match slot {
                0 => cookie("state"),
                _ => cookie(&format!("state_{slot}")),
            }),
        }
    }

    fn name(&self, slot: Slot) -> &str {
        self.slots.get(slot.0).map_or("", |cookie| &cookie.name)
    }
}

impl SessionCookies {
    /// The names that this browser was given, and where it keeps them.
    pub fn oauth_browsers(&self, headers: &HeaderMap) -> Vec<(Slot, OneTimeToken<OAuthBrowser>)> {
        let slots = self.state.slots.iter().enumerate();
        let values = slots.flat_map(|(slot, cookie)| cookie.values(headers).map(move |value| (Slot(slot), value)));
        values
            // One a slot; what else there may be is not ours.
            .take(2 * Slot::ALL)
            .filter_map(|(slot, value)| {
                let plain = self.signed(value, Spelling::Cookie)?;
                let name = std::str::from_utf8(plain).ok()?.strip_prefix(MARK)?;
                Some((slot, OneTimeToken::parse(name)?))
            })
            .collect()
    }

    pub fn set_oauth_browser(&self, slot: Slot, name: &OneTimeToken<OAuthBrowser>, max_age: Duration) -> HeaderValue {
        let marked = format!("{MARK}{}", name.as_str());
        self.set_cookie_with(self.state.name(slot), &marked, Some(max_age), &self.arriving)
    }

    pub fn clear_oauth_browser(&self, slot: Slot) -> HeaderValue {
        super::clear_cookie(self.state.name(slot), &self.arriving)
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::{super::tests::cookies, *};

    fn crumb(set: &HeaderValue) -> &str {
        set.to_str().unwrap().split(';').next().unwrap()
    }

    fn sent(crumbs: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, crumbs.parse().unwrap())])
    }

    #[test]
    fn what_was_set_is_found_in_every_slot_and_nowhere_else() {
        let cookies = cookies();
        for slot in (0..Slot::ALL).map(Slot) {
            let name = OneTimeToken::generate();
            let set = cookies.set_oauth_browser(slot, &name, Duration::from_mins(10));
            let found = cookies.oauth_browsers(&sent(crumb(&set)));
            let [(at, found)] = found.as_slice() else {
                panic!("{slot:?}: {found:?}")
            };
            assert_eq!((*at, found.as_str()), (slot, name.as_str()));
            let cleared = cookies.clear_oauth_browser(slot);
            let (start, end) = cleared.to_str().unwrap().split_once("=;").unwrap();
            assert!(crumb(&set).starts_with(&format!("{start}=")) && end.starts_with(" Max-Age=0; "));
        }
    }

    #[test]
    fn what_is_not_signed_by_us_is_no_name() {
        let cookies = cookies();
        let set = cookies.set_oauth_browser(Slot(0), &OneTimeToken::generate(), Duration::from_mins(10));
        let forged = crumb(&set).replacen("state=", "state=x", 1);
        for crumbs in [
            forged.as_str(),
            "__Host-vestibule.state=",
            "__Host-vestibule.state_8=x.y",
            "",
        ] {
            assert!(cookies.oauth_browsers(&sent(crumbs)).is_empty(), "{crumbs}");
        }
    }

    #[test]
    fn no_other_cookie_stands_in_for_it_nor_it_for_another() {
        let cookies = cookies();
        let set = cookies.set_oauth_browser(Slot(0), &OneTimeToken::generate(), Duration::from_mins(10));
        let elsewhere = crumb(&set).replacen("state=", "sign_up=", 1);
        assert!(cookies.sign_up_mark(&sent(&elsewhere)).is_none());
        let mark = cookies.set_sign_up_mark(&OneTimeToken::generate(), Duration::from_mins(10));
        assert!(cookies.sign_up_mark(&sent(crumb(&mark))).is_some());
        let here = crumb(&mark).replacen("sign_up=", "state=", 1);
        assert!(here.contains("state=") && cookies.oauth_browsers(&sent(&here)).is_empty());
    }

    #[test]
    fn every_slot_is_drawn() {
        let mut drawn = [false; Slot::ALL];
        for _ in 0..2000 {
            drawn[Slot::drawn().0] = true;
        }
        assert_eq!(drawn, [true; Slot::ALL]);
    }
}
