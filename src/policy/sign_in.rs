//! Whether somebody who has no session is sent to the sign-in page, and by which address.

use super::origin::append_query;
use crate::config::OnDenied;

/// Where to send whoever asked for `target`: to the page, which gets the way back: a path of this origin, never a whole
/// URL. `None`: the refusal's status is the answer.
pub fn location(on_denied: OnDenied, is_navigation: bool, page: Option<&str>, target: &str) -> Option<String> {
    let to_page = match on_denied {
        OnDenied::Auto => is_navigation,
        OnDenied::SignIn => true,
        OnDenied::Status => false,
    };
    let page = page.filter(|_| to_page)?;
    Some(append_query(page, "return_to", target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_sent_to_the_page_and_programs_are_not() {
        let to = |on_denied, is_navigation| location(on_denied, is_navigation, Some("/sign-in"), "/app?x=1");
        let page = Some("/sign-in?return_to=%2Fapp%3Fx%3D1".to_owned());
        assert_eq!(to(OnDenied::Auto, true), page);
        assert_eq!(to(OnDenied::Auto, false), None);
        assert_eq!(to(OnDenied::SignIn, false), page);
        assert_eq!(to(OnDenied::Status, true), None);
        assert_eq!(location(OnDenied::SignIn, true, None, "/app"), None, "there is no page");
    }
}
