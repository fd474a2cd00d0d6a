//! What somebody signed in with, read from a User-Agent: shown to people, so that they recognise their sessions.
//!
//! Families only: a version would be wrong after the next update and tells nobody which of their devices it is. The
//! patterns are woothee's. Programs that it doesn't know go by the name that they put first (`curl/8.5.0`).

use woothee::parser::{Parser, WootheeResult};

use crate::identity::{Device, DeviceKind};

/// Bytes that are looked at; those of browsers have some 150, and whoever sends more gains nothing by it.
const MAX_LENGTH: usize = 512;

/// A longer name is no program's.
const MAX_NAME: usize = 40;

/// woothee's word for what it can't tell.
const UNKNOWN: &str = "UNKNOWN";
/// And its name for most programs.
const LIBRARY: &str = "HTTP Library";

/// The device that `user_agent` claims to be.
pub fn of(user_agent: &str) -> Device {
    let user_agent = user_agent
        .get(..user_agent.floor_char_boundary(MAX_LENGTH))
        .unwrap_or_default();
    let seen = Parser::new().parse(user_agent).unwrap_or_default();
    let os = os(seen.os);
    let browser = match seen.name {
        "" | UNKNOWN | LIBRARY => first_product(user_agent),
        name => Some(browser(name).to_owned()),
    };
    Device {
        kind: kind(&seen, os, user_agent),
        browser,
        os: os.map(str::to_owned),
    }
}

fn browser(name: &str) -> &str {
    match name {
        "SamsungBrowser" => "Samsung Internet",
        // An app that shows pages in itself.
        "Webview" => "WebView",
        "misc crawler" => "Crawler",
        name => name,
    }
}

/// Without the versions that woothee has among its names.
fn os(name: &str) -> Option<&str> {
    match name {
        "" | UNKNOWN => None,
        "Windows Phone OS" => Some("Windows Phone"),
        name if name.starts_with("Windows") => Some("Windows"),
        "Mac OSX" | "Mac OS Classic" => Some("macOS"),
        "iPhone" | "iPod" => Some("iOS"),
        "iPad" => Some("iPadOS"),
        "BlackBerry 10" => Some("BlackBerry"),
        name => Some(name),
    }
}

fn kind(seen: &WootheeResult<'_>, os: Option<&str>, user_agent: &str) -> DeviceKind {
    match (seen.category, os) {
        ("crawler", _) => DeviceKind::Bot,
        (_, Some("iPadOS")) => DeviceKind::Tablet,
        // By Google's rule for Android browsers: phones say "Mobile", tablets don't.
        (_, Some("Android")) if !user_agent.contains("Mobile") => DeviceKind::Tablet,
        ("smartphone" | "mobilephone", _) => DeviceKind::Mobile,
        ("pc", _) => DeviceKind::Desktop,
        _ => DeviceKind::Other,
    }
}

/// `python-requests` of `python-requests/2.31.0`: the first product (RFC 9110, 10.1.5), if it has a version to show
/// that it is one.
fn first_product(user_agent: &str) -> Option<String> {
    let (name, _) = user_agent.split_once('/')?;
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    // Every browser calls itself that, and so does everything that imitates one.
    (plain && (1..=MAX_NAME).contains(&name.len()) && name != "Mozilla").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Empty text stands for what isn't known.
    fn device(browser: &str, os: &str, kind: DeviceKind) -> Device {
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Device {
            browser: named(browser),
            os: named(os),
            kind,
        }
    }

    #[test]
    fn browsers_are_told_apart_as_people_would() {
        for (user_agent, browser, os, kind) in [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                "Chrome",
                "Windows",
                DeviceKind::Desktop,
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.81",
                "Edge",
                "Windows",
                DeviceKind::Desktop,
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36 OPR/111.0.0.0",
                "Opera",
                "Windows",
                DeviceKind::Desktop,
            ),
            (
                "Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko",
                "Internet Explorer",
                "Windows",
                DeviceKind::Desktop,
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
                "Safari",
                "macOS",
                DeviceKind::Desktop,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                "Firefox",
                "Linux",
                DeviceKind::Desktop,
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                "Chrome",
                "ChromeOS",
                DeviceKind::Desktop,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                "Safari",
                "iOS",
                DeviceKind::Mobile,
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 16_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1",
                "Safari",
                "iPadOS",
                DeviceKind::Tablet,
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
                "Chrome",
                "Android",
                DeviceKind::Mobile,
            ),
            (
                "Mozilla/5.0 (Linux; Android 13; SM-X906C) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                "Chrome",
                "Android",
                DeviceKind::Tablet,
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
                "Samsung Internet",
                "Android",
                DeviceKind::Mobile,
            ),
            (
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                "Googlebot",
                "",
                DeviceKind::Bot,
            ),
        ] {
            assert_eq!(of(user_agent), device(browser, os, kind), "{user_agent}");
        }
    }

    #[test]
    fn programs_go_by_their_name_and_nonsense_by_none() {
        let long = format!("Mozilla/5.0 (X11; Linux x86_64; {}) Firefox/128.0", "é".repeat(5000));
        for (user_agent, browser, os, kind) in [
            ("curl/8.5.0", "curl", "", DeviceKind::Other),
            ("python-requests/2.31.0", "python-requests", "", DeviceKind::Other),
            ("okhttp/4.12.0", "okhttp", "", DeviceKind::Other),
            ("Java/17.0.2", "Java", "", DeviceKind::Other),
            ("", "", "", DeviceKind::Other),
            ("-", "", "", DeviceKind::Other),
            ("Mozilla/5.0", "", "", DeviceKind::Other),
            ("<script>alert(1)</script>/1", "", "", DeviceKind::Other),
            ("\u{fffd}\u{202e}ÿ\t/ ;;((", "", "", DeviceKind::Other),
            (&"x/".repeat(5000), "x", "", DeviceKind::Other),
            (&"x".repeat(10_000), "", "", DeviceKind::Other),
            (&long, "", "Linux", DeviceKind::Desktop),
        ] {
            assert_eq!(of(user_agent), device(browser, os, kind), "{user_agent:.120}");
        }
    }
}
