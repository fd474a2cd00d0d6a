//! Property: whatever a configuration says, it is taken whole or refused with a reason, and no secret of it shows when it
//! is printed. The input is a `gateway.toml`.

use vestibule::config;

pub fn holds(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    // Files that it names are read; these have no end.
    if text.contains("/dev") {
        return;
    }
    match config::parse(text, "gateway.toml", &|_| None) {
        Ok(config) => {
            let printed = format!("{config:?}");
            for secret in &config.auth.secret {
                assert!(
                    !printed.contains(secret.expose().as_str()),
                    "the secret shows in {printed}"
                );
            }
            for route in &config.routes {
                let path = route.path.text.trim_end_matches('*');
                assert!(path.starts_with('/') && !path.contains("//"), "{route:?}");
            }
        }
        Err(errors) => assert!(!errors.to_string().trim().is_empty(), "refused without a reason"),
    }
}
