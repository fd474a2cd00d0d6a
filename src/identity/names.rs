//! Under which names upstreams are told who calls, and what they are told under them.
//!
//! A reload may rename headers while a request is on its way, which then removes what its client says under the old names.
//! Were its session told under the new ones, the client's own word would stand beside ours. So what is rendered remembers
//! by which names, and [`Rendered::under`] gives it to nobody who goes by others.

use std::sync::Arc;

use http::HeaderName;

use crate::fields::Lines;

/// `None`: that part is not sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IdentityNames {
    pub user_id: Option<HeaderName>,
    pub email: Option<HeaderName>,
    pub email_verified: Option<HeaderName>,
    pub name: Option<HeaderName>,
    pub roles: Option<HeaderName>,
    pub session_id: Option<HeaderName>,
    pub auth_time: Option<HeaderName>,
    pub auth_methods: Option<HeaderName>,
}

impl IdentityNames {
    /// Those that are sent.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        [
            &self.user_id,
            &self.email,
            &self.email_verified,
            &self.name,
            &self.roles,
            &self.session_id,
            &self.auth_time,
            &self.auth_methods,
        ]
        .into_iter()
        .flatten()
    }
}

/// Identity headers as they leave for upstreams.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    names: Arc<IdentityNames>,
    lines: Lines,
}

impl Rendered {
    pub const fn new(names: Arc<IdentityNames>, lines: Lines) -> Self {
        Self { names, lines }
    }

    /// The lines, if it was these very names that they were rendered by: equal ones elsewhere are taken for others.
    pub fn under(&self, names: &Arc<IdentityNames>) -> Option<&Lines> {
        Arc::ptr_eq(&self.names, names).then_some(&self.lines)
    }
}
