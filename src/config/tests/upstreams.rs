//! `[upstreams.*]`: endpoints of every kind, their TLS, and how they are judged.

use std::path::PathBuf;

use super::*;

const BEHIND_TLS: &str = "[upstreams.web]\nendpoints = 'https://app.internal'\n";

/// What an authority signed: certificate and key in PEM.
fn made() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["app.internal".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// The configuration with `extra` behind it, in a folder that holds these files.
fn in_folder(files: &[(&str, &str)], extra: &str) -> Result<Config, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let overrides = Overrides::default();
    parse_with(
        &plus(extra),
        &folder.path().join("gateway.toml"),
        &environment,
        &overrides,
    )
}

#[test]
fn endpoints_of_every_kind_are_understood() {
    let name = |host: &str, port| At::Name {
        host: host.to_owned(),
        port,
    };
    for (text, scheme, at) in [
        ("http://app", Scheme::Http, name("app", 80)),
        ("https://app", Scheme::Https, name("app", 443)),
        ("https://app:8443/", Scheme::Https, name("app", 8443)),
        ("h2c://app:50051", Scheme::H2c, name("app", 50051)),
        ("h2c://10.0.0.1", Scheme::H2c, At::Addr("10.0.0.1:80".parse().unwrap())),
        (
            "https://[::1]:443",
            Scheme::Https,
            At::Addr("[::1]:443".parse().unwrap()),
        ),
        (
            "unix:/run/app.sock",
            Scheme::Http,
            At::Unix(PathBuf::from("/run/app.sock")),
        ),
        (
            "unix+h2c:/run/app.sock",
            Scheme::H2c,
            At::Unix(PathBuf::from("/run/app.sock")),
        ),
    ] {
        let config = loaded(&plus(&format!("[upstreams.web]\nendpoints = '{text}'\n")));
        assert_eq!(config.upstreams[1].endpoints, [Endpoint { scheme, at }], "{text}");
    }
}

#[test]
fn endpoints_are_written_as_they_are_read() {
    for text in [
        "http://10.0.0.1:80",
        "https://app:443",
        "h2c://[::1]:50051",
        "unix:/run/app.sock",
        "unix+h2c:/run/app.sock",
    ] {
        let config = loaded(&plus(&format!("[upstreams.web]\nendpoints = '{text}'\n")));
        assert_eq!(config.upstreams[1].endpoints[0].to_string(), text);
    }
}

#[test]
fn nobody_is_asked_and_outliers_are_ejected_by_default() {
    let config = loaded(MINIMAL);
    let api = &config.upstreams[0];
    assert_eq!(api.health_check, None);
    assert_eq!((api.outliers.failures, api.outliers.max_ejected), (5, 50));
    assert_eq!(api.slow_start, Duration::ZERO);
    assert_eq!(api.tls, UpstreamTls::default());
    assert_eq!((api.protocol, api.max_queue), (Protocol::Negotiated, 1024));
}

#[test]
fn a_health_check_needs_nothing_but_its_path() {
    let config = loaded(&plus(
        "[upstreams.web]\nendpoints = 'http://a'\nhealth_check = { path = '/up?deep=1' }\n",
    ));
    let check = config.upstreams[1].health_check.clone().unwrap();
    assert_eq!((check.path.as_str(), check.status), ("/up?deep=1", 200..=399));
    assert_eq!((check.healthy, check.unhealthy, check.host), (2, 3, None));
    assert_eq!(check.interval, Duration::from_secs(5));
}

#[test]
fn good_statuses_are_one_or_a_range() {
    let with = |status: &str| {
        format!("[upstreams.web]\nendpoints = 'http://a'\nhealth_check = {{ path = '/', status = '{status}' }}\n")
    };
    for (text, range) in [("200", 200..=200), ("200-299", 200..=299)] {
        let config = loaded(&plus(&with(text)));
        assert_eq!(config.upstreams[1].health_check.clone().unwrap().status, range);
    }
    for (text, nearest) in [
        ("399-200", Some("200-399")),
        ("2xx", None),
        ("200-", None),
        ("99", None),
    ] {
        let error = only_error(&with(text));
        assert_eq!(error.key, "upstreams.web.health_check.status");
        assert_eq!(error.nearest.as_deref(), nearest, "{text}");
    }
}

#[test]
fn tls_files_are_read_and_compared_by_what_they_say() {
    let (certificate, key) = made();
    let extra = format!(
        "{BEHIND_TLS}tls = {{ ca = 'ca.crt', certificate = 'own.crt', key = 'own.key', server_name = 'api.internal' }}\n"
    );
    let load = |certificate: &str, key: &str| {
        let files = [("ca.crt", certificate), ("own.crt", certificate), ("own.key", key)];
        let config = in_folder(&files, &extra).unwrap_or_else(|errors| panic!("{errors}"));
        config.upstreams[1].clone()
    };
    let first = load(&certificate, &key);
    assert_eq!(first.tls.ca.as_ref().unwrap().len(), 1);
    assert_eq!(first, load(&certificate, &key));
    let (renewed, its_key) = made();
    assert_ne!(first, load(&renewed, &its_key));
    // A key is nothing for logs.
    let told = format!("{first:?}");
    assert!(!told.contains("PRIVATE") && told.contains("elided"), "{told}");
}

#[test]
fn tls_that_could_not_work_is_refused() {
    let (certificate, _) = made();
    let (_, other_key) = made();
    let files = [
        ("own.crt", certificate.as_str()),
        ("other.key", other_key.as_str()),
        ("empty", ""),
    ];
    for (tls, key) in [
        ("ca = 'none.crt'", "ca"),
        ("ca = 'empty'", "ca"),
        ("ca = 'other.key'", "ca"),
        ("certificate = 'own.crt'", "certificate"),
        ("key = 'other.key'", "key"),
        ("certificate = 'own.crt', key = 'other.key'", "key"),
        ("certificate = 'own.crt', key = 'own.crt'", "key"),
        ("server_name = 'not a name'", "server_name"),
    ] {
        let errors = in_folder(&files, &format!("{BEHIND_TLS}tls = {{ {tls} }}\n")).unwrap_err();
        let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, [format!("upstreams.web.tls.{key}")], "{tls}\n{errors}");
        assert!(!errors.to_string().contains("PRIVATE KEY-----\nM"), "{errors}");
    }
}
