//! Whether somebody whose session is missing or too old is sent to the sign-in page, and by which address.

use super::{Denied, Unmet, redirect::append_query};
use crate::config::OnDenied;

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AskedBy {
    /// A person, for a page.
    Navigation,
    Program,
    /// gRPC, which can't go to a page.
    Call,
}

/// Where to send whoever asked for `target`: to the page, which gets the way back: a path of this origin, never a whole
/// URL. `None`: the refusal's status is the answer.
pub fn location(
    denied: Denied,
    on_denied: OnDenied,
    asked_by: AskedBy,
    page: Option<&str>,
    target: &str,
) -> Option<String> {
    let to_page = match on_denied {
        OnDenied::Auto => asked_by == AskedBy::Navigation,
        OnDenied::SignIn => asked_by != AskedBy::Call,
        OnDenied::Status => false,
    };
    let path = |of: &str| of.split(['?', '#']).next().map(str::to_owned);
    // The page itself, at a host where it needs a session: they would be sent from it to it, for ever.
    let is_page = |page: &&str| path(page) == path(target);
    let page = page.filter(|page| to_page && !is_page(page))?;
    let to = append_query(page, "return_to", target);
    match denied {
        Denied::SignInNeeded => Some(to),
        // They are signed in, but have to show anew who they are: a page that sent them straight back would do so for ever.
        Denied::NotAllowed(Unmet::Fresh) => Some(append_query(&to, "step_up", "fresh")),
        Denied::NotAllowed(Unmet::Role | Unmet::VerifiedEmail) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Option<&str> = Some("/sign-in");

    #[test]
    fn people_are_sent_to_the_page_and_programs_are_not() {
        let to = |on_denied, asked_by| location(Denied::SignInNeeded, on_denied, asked_by, PAGE, "/app?x=1");
        let page = Some("/sign-in?return_to=%2Fapp%3Fx%3D1".to_owned());
        assert_eq!(to(OnDenied::Auto, AskedBy::Navigation), page);
        assert_eq!(to(OnDenied::Auto, AskedBy::Program), None);
        assert_eq!(to(OnDenied::SignIn, AskedBy::Program), page);
        assert_eq!(to(OnDenied::SignIn, AskedBy::Call), None);
        assert_eq!(to(OnDenied::Status, AskedBy::Navigation), None);
        let none = location(
            Denied::SignInNeeded,
            OnDenied::SignIn,
            AskedBy::Navigation,
            None,
            "/app",
        );
        assert_eq!(none, None, "there is no page");
        let from = |target| {
            let (denied, asked_by) = (Denied::SignInNeeded, AskedBy::Navigation);
            location(denied, OnDenied::Auto, asked_by, Some("/sign-in?x=1"), target)
        };
        assert_eq!(from("/sign-in"), None, "that is the page");
        assert_eq!(from("/sign-in?return_to=%2Fapp"), None, "that is the page");
        assert!(from("/sign-in/x").is_some());
    }

    #[test]
    fn whoever_must_sign_in_again_is_not_sent_straight_back() {
        let to = |unmet| {
            location(
                Denied::NotAllowed(unmet),
                OnDenied::Auto,
                AskedBy::Navigation,
                PAGE,
                "/app",
            )
        };
        let again = Some("/sign-in?return_to=%2Fapp&step_up=fresh".to_owned());
        assert_eq!(to(Unmet::Fresh), again);
        assert_eq!((to(Unmet::Role), to(Unmet::VerifiedEmail)), (None, None));
    }
}
