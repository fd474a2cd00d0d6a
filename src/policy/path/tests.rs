use proptest::prelude::*;

use super::*;

fn path(raw: &str) -> Result<String, PathError> {
    NormalPath::parse(raw).map(|path| path.as_str().to_owned())
}

#[test]
fn ordinary_paths_stay_as_they_are() {
    for raw in [
        "/",
        "/api/items",
        "/api/items/",
        "/.well-known/openid-configuration",
        "/a.b/..c/.d/e../f.",
        "/{id}/[x]/a|b/^",
        "/it's/~ada/@me/a+b/a=b,c;d:e!$&()*",
        "/a%20b/%2B/%25/%23/%3F/%7B%7D",
        "/caf%C3%A9/%E2%82%AC/%F0%9F%98%80",
        "/...;x/a;v=1",
    ] {
        let parsed = NormalPath::parse(raw).unwrap();
        assert!(parsed.is_unchanged(), "{raw} became {parsed:?}");
        assert_eq!(parsed.as_str(), raw);
    }
}

#[test]
fn other_spellings_become_the_normal_one() {
    for (raw, normal) in [
        ("/%61dmin/x", "/admin/x"),
        ("/public/../admin/x", "/admin/x"),
        ("/public/%2e%2e/admin", "/admin"),
        ("/public/.%2e/admin", "/admin"),
        ("/public/%2E./admin", "/admin"),
        ("/a//b///c", "/a/b/c"),
        ("//evil.example/x", "/evil.example/x"),
        ("/a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/a//../b", "/b"),
        ("/.", "/"),
        ("/./", "/"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/%7euser", "/~user"),
        ("/x%3a", "/x%3A"),
        // Decoded once only.
        ("/%252e%252e/x%2d", "/%252e%252e/x-"),
    ] {
        assert_eq!(path(raw).as_deref(), Ok(normal), "{raw}");
    }
}

#[test]
fn what_reads_in_two_ways_is_refused() {
    for (raw, error) in [
        ("", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
        ("admin", PathError::NotAbsolute),
        ("/..", PathError::AboveRoot),
        ("/a/../../b", PathError::AboveRoot),
        ("/%2e%2e/etc", PathError::AboveRoot),
        ("//..", PathError::AboveRoot),
        ("/public/..%2fadmin", PathError::EncodedSlash),
        ("/public%2F..%2Fadmin", PathError::EncodedSlash),
        ("/public/..%5cadmin", PathError::Backslash),
        ("/public\\admin", PathError::Backslash),
        ("/public/..;/admin", PathError::DotWithParameter),
        ("/public/..;x=1/admin", PathError::DotWithParameter),
        ("/public/..%3b/admin", PathError::DotWithParameter),
        ("/public/.;/admin", PathError::DotWithParameter),
        ("/public/%2e%2E%3Bx", PathError::DotWithParameter),
        ("/admin/x%00.png", PathError::Control),
        ("/public/%0d%0a", PathError::Control),
        ("/x%7F", PathError::Control),
        ("/a\tb", PathError::Control),
        ("/api/%zz", PathError::BadEscape),
        ("/api/%", PathError::BadEscape),
        ("/api/%2", PathError::BadEscape),
        ("/api/%+1", PathError::BadEscape),
        ("/%C0%AF", PathError::NotUtf8),
        ("/%E0%80%AF", PathError::NotUtf8),
        ("/%ED%A0%80", PathError::NotUtf8),
        ("/%80", PathError::NotUtf8),
        ("/%FF", PathError::NotUtf8),
        ("/%E2%82x", PathError::NotUtf8),
        ("/%E2%82", PathError::NotUtf8),
        ("/%C3a%A9", PathError::NotUtf8),
        ("/%C3%A", PathError::BadEscape),
        ("/admin#/public", PathError::Fragment),
        ("/public#/../admin", PathError::Fragment),
        ("/x?y#z", PathError::Fragment),
        ("/a b", PathError::IllegalByte),
        ("/\"x\"", PathError::IllegalByte),
        ("/<x>", PathError::IllegalByte),
        ("/`x`", PathError::IllegalByte),
        ("/é", PathError::IllegalByte),
    ] {
        assert_eq!(path(raw), Err(error), "{raw}");
    }
}

#[test]
fn an_encoded_number_sign_is_an_ordinary_byte() {
    assert_eq!(path("/admin%23/public").as_deref(), Ok("/admin%23/public"));
}

#[test]
fn the_query_is_forwarded_and_never_judged() {
    for (raw, target) in [
        ("/admin/x?next=/public/../%2e//", "/admin/x?next=/public/../%2e//"),
        ("/admin/x?/public/", "/admin/x?/public/"),
        ("/a/../b?%zz&\\", "/b?%zz&\\"),
        ("/a//b?", "/a/b?"),
        ("/a?b?c", "/a?b?c"),
    ] {
        let parsed = NormalPath::parse(raw).unwrap();
        assert_eq!(parsed.target().as_str(), target);
        assert!(!parsed.as_str().contains('?'));
    }
    let long = format!("/a?{}", "q".repeat(8192));
    assert_eq!(NormalPath::parse(&long).unwrap().target().as_str(), long);
}

#[test]
fn an_absolute_target_without_a_path_is_the_root() {
    let uri: http::Uri = "http://example.com?x=1".parse().unwrap();
    let target = uri.into_parts().path_and_query.unwrap();
    assert_eq!(NormalPath::from_target(target).unwrap().target().as_str(), "/?x=1");
}

#[test]
fn a_target_longer_than_uris_can_be_is_refused() {
    assert_eq!(path(&format!("/{}", "a".repeat(70_000))), Err(PathError::TooLong));
}

#[test]
fn a_base_path_ends_at_a_segment_boundary() {
    let below = |raw: &str| NormalPath::parse(raw).unwrap().below("/api/auth").map(str::to_owned);
    assert_eq!(below("/api/auth/ok").as_deref(), Some("/ok"));
    assert_eq!(below("/api/auth").as_deref(), Some(""));
    assert_eq!(below("/api/authx"), None);
    assert_eq!(below("/API/auth/ok"), None);
}

#[test]
fn segments_tell_a_trailing_slash() {
    let segments =
        |raw: &str| -> Vec<String> { NormalPath::parse(raw).unwrap().segments().map(str::to_owned).collect() };
    assert_eq!(segments("/"), [""]);
    assert_eq!(segments("/t"), ["t"]);
    assert_eq!(segments("/t/"), ["t", ""]);
}

const EVERYTHING: Kept = Kept {
    slashes: true,
    bytes: true,
};

#[test]
fn what_some_routes_keep_says_that_it_is_there() {
    let slashes = Kept {
        slashes: true,
        bytes: false,
    };
    let bytes = Kept {
        slashes: false,
        bytes: true,
    };
    for (raw, normal, odd) in [
        ("/plain/%C3%A9", "/plain/%C3%A9", Kept::default()),
        ("/group%2fproject/x", "/group%2Fproject/x", slashes),
        ("/proxy/https:%2F%2Fexample.com/../y", "/proxy/y", slashes),
        ("/a%2F...%2Fb", "/a%2F...%2Fb", slashes),
        ("/caf%e9/%80%ff", "/caf%E9/%80%FF", bytes),
        ("/%C0bc", "/%C0bc", bytes),
        // Ordinary letters, in windows-1251.
        ("/%F8%B8%EB", "/%F8%B8%EB", bytes),
        ("/%ED%A0%80%2f", "/%ED%A0%80%2F", EVERYTHING),
    ] {
        let parsed = NormalPath::parse_keeping(raw, EVERYTHING).unwrap();
        assert_eq!((parsed.as_str(), parsed.odd), (normal, odd), "{raw}");
        assert_eq!(
            parsed.unfit_for(Kept::default()).is_none(),
            odd == Kept::default(),
            "{raw}"
        );
        assert_eq!(parsed.unfit_for(EVERYTHING), None);
    }
    let slash = NormalPath::parse_keeping("/a%2Fb", slashes).unwrap();
    assert_eq!(slash.unfit_for(bytes), Some(PathError::EncodedSlash));
    assert_eq!(NormalPath::parse_keeping("/%E9", slashes), Err(PathError::NotUtf8));
    assert_eq!(NormalPath::parse_keeping("/a%2Fb", bytes), Err(PathError::EncodedSlash));
}

#[test]
fn keeping_more_never_lets_a_path_climb() {
    for raw in [
        "/public/..%2fadmin",
        "/public%2F..%2Fadmin",
        "/public/%2e%2e%2fadmin",
        "/public/x%2f..",
        "/public/x%2f.%2fy",
        "/public/x%2f..;a%2fy",
        "/public/x%2F..%3by",
        "/public%2F.",
        "/public/%C0%AE%C0%AE/admin",
        "/public/..%C0%AFadmin",
        "/public/%E0%80%AF",
        "/public/%F0%80%80%AF",
        "/public/%F8%80%80%80%AF",
        "/public/%f8%87%bf%bf%bf",
        "/public/%FC%80%80%80%80%AE/admin",
        "/public/%FC%83%BF%BF%BF%BF",
        "/public/..%5cadmin",
        "/x%00%2f",
        "/%zz%2f",
    ] {
        assert!(NormalPath::parse_keeping(raw, EVERYTHING).is_err(), "{raw}");
    }
}

#[test]
fn prefixes_come_and_go_at_segment_boundaries() {
    for (raw, strip, add, target) in [
        ("/api/x?q=1&q=%2f", 1, "", "/x?q=1&q=%2f"),
        ("/api", 1, "", "/"),
        ("/api?q", 1, "", "/?q"),
        ("/api/", 1, "", "/"),
        ("/api", 1, "/v2", "/v2"),
        ("/api/", 1, "/v2", "/v2/"),
        ("/api/x/", 1, "/v2/y", "/v2/y/x/"),
        ("/x", 0, "/v2", "/v2/x"),
        ("/", 0, "/v2", "/v2/"),
        ("/a/b/c", 2, "", "/c"),
        ("/%40me/x", 1, "", "/x"),
        ("/api//evil.example/x", 1, "", "/evil.example/x"),
    ] {
        let path = NormalPath::parse(raw).unwrap().rewritten(strip, add).unwrap();
        assert_eq!(path.target().as_str(), target, "{raw}");
    }
    let long = NormalPath::parse(&format!("/{}", "a".repeat(65_000))).unwrap();
    assert_eq!(
        long.rewritten(0, &format!("/{}", "b".repeat(600))),
        Err(PathError::TooLong)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_is_left_of_a_normal_path_is_normal(
        raw in "/([a-zA-Z0-9/.;%]|%2[eEfF]|%[0-9a-fA-F]{2}|\\.\\.|/){0,24}(\\?[a-z/.%]{0,8})?",
        strip in 0_usize..4,
        add in prop_oneof![Just(""), Just("/v2"), Just("/v%2B/x")],
    ) {
        if let Ok(parsed) = NormalPath::parse_keeping(&raw, EVERYTHING) {
            let rewritten = parsed.rewritten(strip, add).unwrap();
            prop_assert_eq!(rewritten.query(), parsed.query());
            let again = NormalPath::parse_keeping(rewritten.target().as_str(), EVERYTHING).unwrap();
            prop_assert!(again.is_unchanged(), "{:?} became {:?}", parsed, rewritten);
            prop_assert!(!rewritten.as_str().starts_with("//"));
        }
    }

    #[test]
    fn what_comes_out_is_normal_and_safe(raw in "/([a-zA-Z0-9/.;%#?\\\\]|%2[eEfF]|%[0-9a-fA-F]{2}|\\.\\.|/){0,24}") {
        if let Ok(parsed) = NormalPath::parse(&raw) {
            let out = parsed.as_str();
            let again = NormalPath::parse(parsed.target().as_str()).unwrap();
            prop_assert!(again.is_unchanged());
            prop_assert_eq!(again.target(), parsed.target());
            prop_assert!(out.starts_with('/') && !out.contains("//") && !out.contains(['\\', '#', '?']));
            let lower = out.to_ascii_lowercase();
            prop_assert!(!lower.contains("%2f") && !lower.contains("%5c") && !lower.contains("%2e"));
            for segment in parsed.segments() {
                prop_assert!(segment != "." && segment != ".." && !segment.starts_with("..;"));
            }
            let decoded = percent_encoding::percent_decode_str(out).decode_utf8();
            prop_assert!(decoded.is_ok_and(|text| !text.contains(|c: char| c.is_ascii_control())));
            prop_assert_eq!(parsed.query(), raw.split_once('?').map(|(_, query)| query));
        }
    }

    #[test]
    fn the_scan_never_takes_another_path_for_a_normal_one(raw in "/([a-z/.;{}]|%[0-9a-fA-F]{2}|%C3%A9|%e2%82%ac){0,16}") {
        if is_normal(raw.as_bytes()) {
            let (rebuilt, odd) = rebuilt(raw.as_bytes(), Kept { slashes: true, bytes: true }).unwrap();
            prop_assert_eq!((rebuilt, odd), (raw.into_bytes(), Kept::default()));
        }
    }

    #[test]
    fn no_input_panics_and_both_entrances_agree(raw in "/\\PC{0,32}") {
        let parsed = NormalPath::parse(&raw);
        if let Ok(target) = PathAndQuery::try_from(raw.as_str())
            && !raw.contains('#')
        {
            prop_assert_eq!(parsed, NormalPath::from_target(target));
        }
    }
}
