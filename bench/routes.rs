//! As many routes as one likes, of the kinds that applications have.

use std::fmt::Write as _;

/// `[[routes]]` to the upstream `api`: of ten, each kind in the proportion that is usual.
pub(crate) fn text(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let (host, pattern) = match number % 10 {
            0 => (None, format!("/service-{number}/*")),
            1 => (None, format!("/api/v1/resource-{number}/{{id}}")),
            2 => (None, format!("/api/v1/resource-{}/{{id}}/details", number - 1)),
            3 => (None, format!("/pages/page-{number}")),
            4 => (None, format!("/tenants/{{tenant}}/section-{number}/*")),
            5 => (None, format!("/api/v2/team-{number}/members/{{member}}/roles")),
            6 => (Some(format!("app-{number}.example.com")), "/*".to_owned()),
            7 => (Some(format!("app-{}.example.com", number - 1)), "/admin/*".to_owned()),
            8 => (Some(format!("*.customer-{number}.example.com")), "/*".to_owned()),
            _ => (None, format!("/assets/bundle-{number}/*")),
        };
        writeln!(text, "[[routes]]\npath = '{pattern}'\nupstream = 'api'").unwrap();
        if let Some(host) = host {
            writeln!(text, "host = '{host}'").unwrap();
        }
        if number % 3 == 0 {
            text.push_str("methods = ['GET', 'POST']\n");
        }
    }
    text
}
