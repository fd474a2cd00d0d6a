//! Values, key by key.

use super::*;

/// One wrong value each: which key is blamed, and what is suggested.
#[test]
fn values_that_would_do_harm_are_refused() {
    for (section, key, value, nearest) in [
        ("server", "listen", "'localhost:8080'", Some("127.0.0.1:8080")),
        ("server", "listen", "':8080'", Some("0.0.0.0:8080")),
        ("server", "listen", "['1.2.3.4:80', '0.0.0.0:80']", None),
        ("server", "listen", "[]", None),
        ("server", "listen", "'127.0.0.1:9901'", None),
        (
            "server",
            "public_url",
            "'https://app.example.com/app'",
            Some("https://app.example.com"),
        ),
        ("server", "public_url", "'app.example.com'", None),
        ("server", "public_url", "'http://app.example.com'", None),
        ("server", "trusted_proxies", "['0.0.0.0/0']", None),
        ("server", "trusted_proxies", "['::/0']", None),
        ("server", "trusted_proxies", "['10.0.0.0/8', '128.0.0.0/1']", None),
        ("server", "trusted_proxies", "['2000::/3']", None),
        (
            "server",
            "trusted_proxies",
            "['::ffff:10.0.0.0/104']",
            Some("10.0.0.0/8"),
        ),
        ("server", "trusted_proxies", "['*']", None),
        ("server", "trusted_proxies", "['10.1.2.3/8']", Some("10.0.0.0/8")),
        ("server", "hosts", "['App.Example.com']", Some("app.example.com")),
        ("server", "hosts", "['app.example.com:80']", Some("app.example.com")),
        (
            "server",
            "hosts",
            "['https://app.example.com/']",
            Some("app.example.com"),
        ),
        ("server", "max_header_bytes", "'4KiB'", None),
        ("server", "max_body", "1048576", Some("\"1048576B\"")),
        ("server", "max_body", "'1048576'", Some("1048576B")),
        ("server", "max_body", "'1 parsec'", None),
        ("server", "header_timeout", "'0s'", None),
        ("server", "header_timeout", "30", Some("\"30s\"")),
        ("server", "header_timeout", "'1 month'", None),
        ("server", "header_timeout", "'-1s'", None),
        ("server", "header_timeout", "'1s ago'", None),
        ("server", "header_timeout", "'100000d'", None),
        ("server", "workers", "-1", None),
        ("server", "listen", "'unix:http.sock'", Some("unix:/run/http.sock")),
        ("server", "listen", "'unix:/run/'", None),
        ("server", "listen", "['unix:/run/a', 'unix:/run/a']", None),
        ("server", "listen", "'fd:2'", Some("fd:3")),
        ("server", "listen", "'fd:'", None),
        ("server", "max_streams", "0", None),
        ("server", "proxy_protocol", "true", None),
        ("server.tls", "certificate", "'tls.crt'", None),
        ("server.tls", "key", "'tls.key'", None),
        ("server", "max_connections", "0", None),
        ("server", "max_open_files", "0", None),
        ("server", "max_connections", "99999999999999999999", None),
        ("admin", "listen", "'0.0.0.0:9901'", Some("127.0.0.1:9901")),
        ("admin", "listen", "'[::]:9901'", Some("127.0.0.1:9901")),
        ("admin", "listen", "'[::ffff:0.0.0.0]:9901'", Some("127.0.0.1:9901")),
        ("admin", "listen", "'203.0.113.7:9901'", Some("127.0.0.1:9901")),
        ("admin", "listen", "'[2001:db8::1]:9901'", Some("127.0.0.1:9901")),
        ("log", "level", "'inof'", Some("info")),
        ("log", "level", "'info,vestibule=loud'", None),
        ("log", "format", "'JSON'", Some("json")),
        ("database", "schema", "'Auth'", Some("auth")),
        ("database", "schema", "'auth; drop'", None),
        ("database", "schema", "'pg_auth'", None),
        ("database", "acquire_timeout", "'0s'", None),
        ("database", "url", "'mysql://x'", None),
        ("database", "url", "'postgres://h/x?sslmode=verify-ca'", None),
        ("database", "url", "'postgres://h/x?sslrootcert=/nowhere/ca.crt'", None),
        (
            "database",
            "url",
            "'postgres://a,b/x?target_session_attrs=read-only'",
            None,
        ),
        ("database", "listen_url", "'mysql://x'", None),
        ("database", "ca", "'/nowhere/ca.crt'", None),
        ("database", "pooler", "'transaction'", None),
        ("database", "pooler", "'session'", None),
        ("auth", "base_path", "'/'", None),
        ("auth", "base_path", "'/api/auth/'", Some("/api/auth")),
        ("auth", "base_path", "'api/auth'", Some("/api/auth")),
        ("auth", "base_path", "'/api//auth'", Some("/api/auth")),
        ("auth", "base_path", "'/api/*'", None),
        ("auth", "secret", "[]", None),
        ("auth", "sign_up", "'true'", Some("true")),
        ("auth", "secret", "'0123456789abcdef0123456789abcde'", None),
        ("auth", "secret", "['0123456789abcdef0123456789abcdef', 'short']", None),
        ("auth", "trusted_origins", "['*']", None),
        ("auth", "trusted_origins", "['null']", Some("https://null")),
        ("auth", "trusted_origins", "['https://*:443']", None),
        ("auth", "trusted_origins", "['https://?.com']", None),
        ("auth", "trusted_origins", "['https://*.com']", None),
        ("auth", "trusted_origins", "['https://*example.com']", None),
        ("auth", "trusted_origins", "['https://*']", None),
        (
            "auth",
            "trusted_origins",
            "['app.example.com']",
            Some("https://app.example.com"),
        ),
        ("auth", "trusted_origins", "['javascript://']", None),
        ("auth", "trusted_origins", "['https://a.example/path']", None),
        ("auth.pages", "sign_in", "'//evil.example'", None),
        ("auth.pages", "sign_in", "'https://evil.example/sign-in'", None),
        ("auth.password", "min_length", "200", None),
        ("auth.password.argon2", "memory", "'19MB'", Some("18555KiB")),
        ("auth.password.argon2", "parallelism", "0", None),
        ("auth.session", "refresh_after", "'8d'", None),
        ("auth.session.cache", "ttl", "'0s'", None),
        ("auth.session.cookie", "prefix", "'__Host-app'", Some("app")),
        ("auth.session.cookie", "prefix", "'a b'", None),
        ("auth.session.cookie", "domain", "'other.example'", None),
        ("auth.session.cookie", "domain", "'com'", None),
        ("auth.session.cookie", "domain", "'.example.com'", Some("example.com")),
        ("mail", "smtp", "'mail.example.com:25'", None),
        ("mail", "smtp", "'smtp://user@mail.example.com'", None),
        ("mail", "from", "'Example'", None),
        ("mail", "from", "'Müller <no-reply@müller.example>'", None),
        ("identity", "preset", "'x-users'", Some("x-user")),
        ("identity", "user_id", "'Cookie'", None),
        ("identity", "user_id", "'X User'", None),
        ("identity", "user_id", "'X_User.Email'", None),
        ("identity", "user_id", "true", None),
        (
            "upstreams.api",
            "endpoints",
            "'127.0.0.1:8000'",
            Some("http://127.0.0.1:8000"),
        ),
        (
            "upstreams.api",
            "endpoints",
            "'http://app:8000/api'",
            Some("http://app:8000"),
        ),
        ("upstreams.api", "endpoints", "'http://app:0'", None),
        ("upstreams.api", "endpoints", "'http://ada@app'", None),
        ("upstreams.api", "endpoints", "'htp://app'", Some("http://app")),
        ("upstreams.api", "endpoints", "'wss://app'", Some("https://app")),
        (
            "upstreams.api",
            "endpoints",
            "'grpc://app:50051'",
            Some("h2c://app:50051"),
        ),
        (
            "upstreams.api",
            "endpoints",
            "'unix:///run/app.sock'",
            Some("unix:/run/app.sock"),
        ),
        ("upstreams.api", "endpoints", "'unix:app.sock'", None),
        (
            "upstreams.api",
            "endpoints",
            "['http://127.0.0.1', 'http://127.0.0.1:80']",
            None,
        ),
        ("upstreams.api", "protocol", "'h2'", None),
        ("upstreams.api", "tls", "{ server_name = 'app' }", None),
        ("upstreams.api", "queue_timeout", "'0s'", None),
        ("upstreams.api", "max_queue", "-1", None),
        ("upstreams.api", "dns_refresh", "'0s'", None),
        ("upstreams.api", "slow_start", "30", Some("\"30s\"")),
        ("upstreams.api", "health_check", "{}", None),
        ("upstreams.api.health_check", "path", "'health'", Some("/health")),
        ("upstreams.api.outliers", "max_ejected", "101", None),
        ("upstreams.api.outliers", "eject_for", "'0s'", None),
        ("upstreams.api", "max_connections", "0", None),
        ("upstreams.Api", "endpoints", "'http://app'", None),
    ] {
        let errors = refused(&set(section, key, value));
        assert_eq!(errors.iter().count(), 1, "{section}.{key} = {value}\n{errors}");
        let error = errors.iter().next().unwrap();
        assert!(
            error.key.starts_with(section.split('.').next().unwrap()) || error.key == "admin.listen",
            "{errors}"
        );
        assert_eq!(error.nearest.as_deref(), nearest, "{section}.{key} = {value}\n{errors}");
    }
}

#[test]
fn values_that_are_fine_are_taken() {
    for (section, key, value) in [
        (
            "server",
            "listen",
            "['0.0.0.0:80', '[::]:80', '127.0.0.1:0', '127.0.0.1:0']",
        ),
        (
            "server",
            "listen",
            "['unix:/run/a.sock', 'unix:/run/b.sock', 'fd:http', 'fd:3']",
        ),
        ("server", "trusted_proxies", "['10.0.0.0/8', 'unix']"),
        ("server", "public_url", "'http://localhost:8080'"),
        ("server", "public_url", "'http://[::1]:8080/'"),
        ("server", "trusted_proxies", "['10.0.0.0/8', '192.0.2.1', 'fd00::/8']"),
        ("server", "hosts", "['*', 'a.example', '127.0.0.1', '[::1]']"),
        ("server", "drain_delay", "'0s'"),
        ("server", "idle_timeout", "'1h 30m'"),
        ("server", "min_body_rate", "'0B'"),
        ("server", "max_body", "'1.5 GiB'"),
        ("log", "level", "'info,vestibule::mail=debug,hyper=off'"),
        ("log", "level", "'INFO'"),
        ("database", "url", "'host=/run/postgresql user=app dbname=app'"),
        (
            "database",
            "url",
            "'postgres://a,b:5433/x?target_session_attrs=read-write&sslmode=verify-full'",
        ),
        ("database", "listen_url", "'postgres://h/x'"),
        (
            "auth",
            "trusted_origins",
            "['https://*.example.com', 'http://localhost:*', 'myapp://', 'myapp://host/x', 'https://pr-?.a.example']",
        ),
        ("auth.pages", "sign_in", "'/sign-in'"),
        ("auth.pages", "sign_in", "'https://app.example.com/sign-in'"),
        ("auth.session", "fresh_for", "'0s'"),
        ("auth.session", "refresh_after", "'7d'"),
        ("auth.session.cookie", "domain", "'example.com'"),
        ("auth.session.cookie", "same_site", "'none'"),
        ("auth.password.argon2", "memory", "'64KiB'"),
        ("mail", "smtp", "'smtp://[::1]:2525'"),
        ("mail", "from", "'Vestibule <no-reply@localhost>'"),
        ("mail", "from", "'Müller <no-reply@xn--mller-kva.example>'"),
        ("identity", "user_id", "'X-My-User'"),
        ("identity", "name", "false"),
        ("identity", "preset", "'remote-user'"),
        (
            "upstreams.api",
            "endpoints",
            "['http://app', 'http://[::1]:8000', 'http://10.0.0.1:80/']",
        ),
    ] {
        let text = set(section, key, value);
        if let Err(errors) = parse(&text, "gateway.toml", &environment) {
            panic!("{section}.{key} = {value}\n{errors}");
        }
    }
}

#[test]
fn presets_and_names_of_ones_own_make_the_headers() {
    let config = loaded(&plus(
        "[identity]\npreset = 'remote-user'\nuser_id = 'X-Me'\nname = false\nsession_id = 'X-S'\n",
    ));
    let names = &config.identity.names;
    assert_eq!(names.user_id.as_ref().unwrap(), "x-me");
    assert_eq!(names.email.as_ref().unwrap(), "remote-email");
    assert_eq!(names.roles.as_ref().unwrap(), "remote-groups");
    assert_eq!(names.session_id.as_ref().unwrap(), "x-s");
    assert_eq!((&names.name, &names.auth_time), (&None, &None));
}

/// Each with the key that is blamed, if any.
#[test]
fn what_a_pooler_and_certificates_need_goes_together() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    let made = rcgen::generate_simple_self_signed(["db.example.com".to_owned()]).unwrap();
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let ca = ca.display();
    for (database, blamed) in [
        (
            "url = 'postgres://pooler:6432/x'\npooler = 'transaction'".to_owned(),
            Some("database.pooler"),
        ),
        (
            "url = 'postgres://u@pooler:6432/x'\nlisten_url = 'postgres://v@pooler:6432/x'\npooler = 'transaction'"
                .to_owned(),
            Some("database.listen_url"),
        ),
        (
            "url = 'postgres://pooler:6432/x'\nlisten_url = 'postgres://pooler:6432/direct'\npooler = 'transaction'"
                .to_owned(),
            None,
        ),
        (
            "url = \"postgres://pooler/x?options=-c%20a=b\"\nlisten_url = 'postgres://h/x'\npooler = 'transaction'"
                .to_owned(),
            Some("database.url"),
        ),
        (
            format!("url = 'postgres://h/x?sslrootcert={ca}'\nca = '{ca}'"),
            Some("database.url"),
        ),
        (
            format!("url = 'postgres://h/x?sslmode=disable'\nca = '{ca}'"),
            Some("database.url"),
        ),
        (
            format!("url = 'postgres://h/x?sslmode=verify-full&sslrootcert={ca}'"),
            None,
        ),
        (format!("url = 'postgres://h/x?sslmode=verify-full'\nca = '{ca}'"), None),
        (
            format!("url = 'postgres:///x?hostaddr=127.0.0.1'\nca = '{ca}'"),
            Some("database.url"),
        ),
        (
            format!(
                "url = 'postgres://h/x?hostaddr=127.0.0.1'\nlisten_url = 'postgres:///x?hostaddr=::1'\nca = '{ca}'"
            ),
            Some("database.listen_url"),
        ),
        (
            format!("url = 'postgres://h/x?hostaddr=127.0.0.1&sslrootcert={ca}'"),
            None,
        ),
        ("url = 'postgres:///x?hostaddr=127.0.0.1'".to_owned(), None),
    ] {
        let text = MINIMAL.replace("url = { env = \"DATABASE_URL\" }", &database);
        match (parse(&text, "gateway.toml", &environment), blamed) {
            (Ok(config), None) => assert_eq!(config.database.ca.is_some(), database.contains("ca.crt"), "{database}"),
            (Err(errors), Some(blamed)) => {
                assert_eq!(errors.iter().count(), 1, "{errors}");
                assert!(errors.iter().all(|error| error.key == blamed), "{database}\n{errors}");
            }
            (outcome, _) => panic!(
                "{database}\n{:?}",
                outcome.map_err(|errors| errors.to_string()).map(|_| "taken")
            ),
        }
    }
}

#[test]
fn a_host_prefix_with_a_domain_is_a_contradiction() {
    let error = only_error("[auth.session.cookie]\ndomain = 'example.com'\nhost_prefix = true\n");
    assert_eq!(error.key, "auth.session.cookie.host_prefix");
    loaded(&plus(
        "[auth.session.cookie]\ndomain = 'example.com'\nhost_prefix = false\n",
    ));
    loaded(&plus("[auth.session.cookie]\ndomain = 'example.com'\n"));
}

/// What opens something to strangers is no accident of a default, and can't be written without saying so.
#[test]
fn what_is_insecure_has_to_be_said_aloud() {
    for (section, key, value, aloud) in [
        ("server", "public_url", "'http://app.example.com'", "allow_insecure"),
        ("server", "public_url", "'http://10.0.0.7:8080'", "allow_insecure"),
        ("admin", "listen", "'0.0.0.0:9901'", "allow_public"),
        ("admin", "listen", "'[2001:db8::1]:9901'", "allow_public"),
        (
            "mail",
            "smtp",
            "'smtp://app:hunter2@mail.example.com'",
            "allow_insecure",
        ),
        ("mail", "smtp", "'smtp://app:hunter2@203.0.113.7'", "allow_insecure"),
    ] {
        let said = set(section, key, value);
        let errors = refused(&said);
        let text = errors.to_string();
        assert_eq!(errors.iter().count(), 1, "{text}");
        let parts = ["gateway.toml:", key, &format!("`{aloud} = true`")];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");

        let header = format!("[{section}]\n");
        loaded(&said.replacen(&header, &format!("{header}{aloud} = true\n"), 1));
    }
    // Trust in everybody, and origins of strangers, can't be said at all.
    for (section, key, value) in [
        ("server", "trusted_proxies", "['0.0.0.0/0']"),
        ("auth", "trusted_origins", "['https://*']"),
        ("auth", "secret", "'short'"),
    ] {
        assert_eq!(refused(&set(section, key, value)).iter().count(), 1, "{value}");
    }
    for (section, key, value) in [
        ("server", "public_url", "'http://localhost:8080'"),
        ("server", "public_url", "'http://app.localhost'"),
        ("server", "public_url", "'http://[::1]:8080'"),
        (
            "server",
            "trusted_proxies",
            "['10.0.0.0/8', 'fc00::/7', '203.0.113.0/24', '192.0.2.1', 'unix']",
        ),
        ("admin", "listen", "'127.0.0.1:9901'"),
        ("admin", "listen", "'127.1.2.3:9901'"),
        ("admin", "listen", "'[::1]:9901'"),
        ("admin", "listen", "'10.0.0.7:9901'"),
        ("admin", "listen", "'172.20.0.2:9901'"),
        ("admin", "listen", "'192.168.1.1:9901'"),
        ("admin", "listen", "'100.64.0.1:9901'"),
        ("admin", "listen", "'169.254.7.7:9901'"),
        ("admin", "listen", "'[fd00::7]:9901'"),
        ("admin", "listen", "'[fe80::7]:9901'"),
        ("admin", "listen", "'[::ffff:10.0.0.7]:9901'"),
        ("mail", "smtp", "'smtp://mail.example.com'"),
        ("mail", "smtp", "'smtp://app:hunter2@localhost'"),
        ("mail", "smtp", "'smtp://app:hunter2@mail:1025'"),
        ("mail", "smtp", "'smtp://app:hunter2@10.0.0.7'"),
        ("mail", "smtp", "'smtps://app:hunter2@mail.example.com'"),
        ("mail", "smtp", "'smtp+starttls://app:hunter2@mail.example.com'"),
    ] {
        loaded(&set(section, key, value));
    }
}
