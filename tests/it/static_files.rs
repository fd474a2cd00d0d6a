//! Files that the gateway serves by itself, and those that it doesn't.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

use crate::harness::{Gateway, Setup, client::Call, gateway::SITE, program::Program, surroundings::Surroundings};

const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// A built application, beside what must never be seen.
fn site() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("secret.txt", "outside");
    write("dist/index.html", "<h1>app</h1>");
    write("dist/assets/app.js", "0123456789");
    write("dist/assets/app.js.gz", "gzipped");
    write("dist/assets/app.js.br", "brotli");
    write("dist/notes.txt", "café");
    write("dist/docs/index.html", "<h1>docs</h1>");
    write("dist/a b.txt", "spaced");
    write("dist/.env", "PASSWORD=1");
    write("dist/.git/config", "[core]");
    write("dist/docs/.hidden/x.txt", "hidden");
    write("dist/.well-known/security.txt", "Contact: x");
    write("dist/docs/.well-known/x.txt", "not at the root");
    let dist = root.path().join("dist");
    symlink(root.path().join("secret.txt"), dist.join("out.txt")).unwrap();
    symlink("/etc", dist.join("etc")).unwrap();
    symlink("notes.txt", dist.join("alias.txt")).unwrap();
    symlink(".env", dist.join("env.txt")).unwrap();
    symlink("loop", dist.join("loop")).unwrap();
    root
}

async fn serving(root: &Path) -> Gateway {
    let dist = root.join("dist");
    let routes = format!(
        "[[routes]]\npath = '/*'\nauth = 'public'\nserve = '{0}'\nfallback = 'index.html'\n\
         [[routes]]\npath = '/files/*'\nauth = 'public'\nserve = '{0}'\nstrip_prefix = '/files'\n\
         response_headers = {{ set = {{ Cache-Control = 'max-age=60' }} }}\n\
         [[routes]]\npath = '/members/*'\nserve = '{0}'\nstrip_prefix = '/members'\n",
        dist.display()
    );
    Setup::default().with(&routes).start().await
}

#[tokio::test]
async fn files_are_found_by_their_path() {
    let root = site();
    let gateway = serving(root.path()).await;
    for (path, body, media) in [
        ("/", "<h1>app</h1>", "text/html; charset=utf-8"),
        ("/index.html", "<h1>app</h1>", "text/html; charset=utf-8"),
        ("/assets/app.js", "0123456789", "text/javascript; charset=utf-8"),
        ("/assets/app.js?v=1", "0123456789", "text/javascript; charset=utf-8"),
        ("/notes.txt", "café", "text/plain; charset=utf-8"),
        ("/a%20b.txt", "spaced", "text/plain; charset=utf-8"),
        ("/docs/", "<h1>docs</h1>", "text/html; charset=utf-8"),
        ("/alias.txt", "café", "text/plain; charset=utf-8"),
        ("/.well-known/security.txt", "Contact: x", "text/plain; charset=utf-8"),
        ("/files/notes.txt", "café", "text/plain; charset=utf-8"),
        ("/files/", "<h1>app</h1>", "text/html; charset=utf-8"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status(), answer.text()), (200, body), "{path}");
        assert_eq!(answer.head.one("content-type"), Some(media), "{path}");
    }
    let head = gateway.call("HEAD", "/assets/app.js").await;
    assert_eq!(
        (head.status(), head.head.one("content-length"), head.body.len()),
        (200, Some("10"), 0)
    );
    assert_eq!(
        gateway.get("/files/notes.txt").await.head.one("cache-control"),
        Some("max-age=60")
    );
}

#[tokio::test]
async fn a_folder_without_its_slash_is_sent_to_it() {
    let root = site();
    let gateway = serving(root.path()).await;
    for (path, location) in [
        ("/docs?q=1", "/docs/?q=1"),
        ("/files", "/files/"),
        ("/files/docs", "/files/docs/"),
        ("//docs", "/docs/"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status(), answer.head.one("location")),
            (307, Some(location)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_application_has_paths_of_its_own() {
    let root = site();
    let gateway = serving(root.path()).await;
    for path in ["/users/7", "/deep/er", "/no.html"] {
        let page = gateway.get(path).header("Accept", HTML).await;
        assert_eq!((page.status(), page.text()), (200, "<h1>app</h1>"), "{path}");
    }
    // What a page loads is there, or it is not.
    let missing = gateway.get("/assets/gone.js").await;
    assert_eq!((missing.status(), missing.code().as_str()), (404, "NOT_FOUND"));
    let fetched = gateway
        .get("/users/7")
        .header("Sec-Fetch-Mode", "cors")
        .header("Accept", HTML)
        .await;
    assert_eq!(fetched.status(), 404);
    assert_eq!(gateway.get("/files/users/7").header("Accept", HTML).await.status(), 404);
}

#[tokio::test]
async fn parts_conditions_and_encodings_are_understood() {
    let root = site();
    let gateway = serving(root.path()).await;
    let part = gateway.get("/assets/app.js").header("Range", "bytes=2-4").await;
    assert_eq!((part.status(), part.text()), (206, "234"));
    assert_eq!(part.head.one("content-range"), Some("bytes 2-4/10"));
    assert_eq!(
        gateway
            .get("/assets/app.js")
            .header("Range", "bytes=20-")
            .await
            .status(),
        416
    );
    for (range, status, text) in [
        // More of the end than there is, as who reads an archive's tail asks for, is all of it (RFC 9110, 14.1.2).
        ("bytes=-3", 206, "789"),
        ("bytes=-10", 206, "0123456789"),
        ("bytes=-11", 206, "0123456789"),
        ("bytes=-03", 206, "789"),
        ("bytes=07-09", 206, "789"),
        ("bytes=00-00", 206, "0"),
        ("bytes=-99999999999999999999999", 206, "0123456789"),
        ("bytes=7-99999999999999999999999", 206, "789"),
        ("bytes=-0", 416, ""),
        ("bytes=99999999999999999999999-", 416, ""),
    ] {
        let part = gateway.get("/assets/app.js").header("Range", range).await;
        assert_eq!((part.status(), part.text()), (status, text), "{range}");
    }
    let several = gateway.get("/assets/app.js").header("Range", "bytes=0-1,3-4").await;
    assert_eq!((several.status(), several.text()), (200, "0123456789"));
    let unsure = gateway
        .get("/assets/app.js")
        .header("Range", "bytes=2-4")
        .header("If-Range", "\"old\"")
        .await;
    assert_eq!((unsure.status(), unsure.text()), (200, "0123456789"));
    let beyond = gateway.get("/assets/app.js").header("Range", "bytes=20-");
    let beyond = beyond.header("If-Range", "\"old\"").await;
    assert_eq!((beyond.status(), beyond.text()), (200, "0123456789"));

    let whole = gateway.get("/assets/app.js").await;
    let (tag, date) = (
        whole.head.one("etag").unwrap(),
        whole.head.one("last-modified").unwrap(),
    );
    for same in [tag, date] {
        let rest = gateway.get("/assets/app.js").header("Range", "bytes=2-4");
        let rest = rest.header("If-Range", same).await;
        assert_eq!((rest.status(), rest.text()), (206, "234"), "{same}");
    }
    let weak = gateway.get("/assets/app.js").header("Range", "bytes=2-4");
    let weak = weak.header("If-Range", format!("W/{tag}")).await;
    assert_eq!(weak.status(), 200);
    assert_eq!(
        gateway
            .get("/assets/app.js")
            .header("If-None-Match", tag)
            .await
            .status(),
        304
    );
    assert_eq!(
        gateway
            .get("/assets/app.js")
            .header("If-Modified-Since", date)
            .await
            .status(),
        304
    );
    assert_eq!(
        gateway
            .get("/assets/app.js")
            .header("If-Match", "\"other\"")
            .await
            .status(),
        412
    );

    for (accepted, encoding, body) in [
        ("gzip, br", "br", "brotli"),
        ("gzip", "gzip", "gzipped"),
        ("br;q=0, gzip", "gzip", "gzipped"),
    ] {
        let answer = gateway.get("/assets/app.js").header("Accept-Encoding", accepted).await;
        assert_eq!(
            (answer.head.one("content-encoding"), answer.text()),
            (Some(encoding), body)
        );
        assert_eq!(answer.head.one("vary"), Some("accept-encoding"));
    }
}

#[tokio::test]
async fn nothing_outside_of_the_folder_and_nothing_hidden_is_seen() {
    let root = site();
    let gateway = serving(root.path()).await;
    for path in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/.git/",
        "/.git",
        "/docs/.hidden/x.txt",
        "/docs/.well-known/x.txt",
        "/env.txt",
        "/out.txt",
        "/etc/passwd",
        "/etc",
        "/etc/",
        "/loop",
        "/index.html/",
        "/index.html/x",
        "/con",
        "/c:/windows/win.ini",
        "/files/c:",
        "/notes.txt:stream",
        "/notes.txt::$DATA",
        "/index.html%20",
        "/secret.txt",
        "/files/../files/.env",
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status(), answer.code().as_str()), (404, "NOT_FOUND"), "{path}");
    }
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/files/..%2f..%2fsecret.txt",
        "/files/%2e%2e%2f%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/files/%5c%5cserver%5cshare",
        "/..;/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/notes.txt%00.html",
        "/%252e%252e/secret.txt",
    ] {
        let status = gateway.get(path).await.status();
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    let path = format!("/{}", "a".repeat(300));
    assert_eq!(gateway.get(&path).await.status(), 404);
}

#[tokio::test]
async fn files_are_only_read() {
    let root = site();
    let gateway = serving(root.path()).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = gateway.call(method, "/notes.txt").await;
        assert_eq!(
            (answer.status(), answer.head.one("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
}

#[tokio::test]
async fn files_for_members_are_for_members() {
    let root = site();
    let gateway = serving(root.path()).await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/members/notes.txt").await.status(), 401);
    let answer = gateway.get("/members/notes.txt").with(&ada).await;
    assert_eq!((answer.status(), answer.text()), (200, "café"));
    assert_eq!(answer.head.one("cache-control"), Some("private, no-cache"));
    // Whether there is such a file is not told either.
    assert_eq!(gateway.get("/members/none.txt").await.status(), 401);
}

#[tokio::test]
async fn a_release_is_made_current_by_turning_a_link() {
    let root = site();
    fs::rename(root.path().join("dist"), root.path().join("one")).unwrap();
    fs::create_dir(root.path().join("two")).unwrap();
    fs::write(root.path().join("two/notes.txt"), "second").unwrap();
    symlink("one", root.path().join("dist")).unwrap();
    let gateway = serving(root.path()).await;
    assert_eq!(gateway.get("/notes.txt").await.text(), "café");
    fs::remove_file(root.path().join("dist")).unwrap();
    symlink("two", root.path().join("dist")).unwrap();
    assert_eq!(gateway.get("/notes.txt").await.text(), "second");
}

#[tokio::test]
async fn a_large_file_arrives_whole() {
    let root = site();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    fs::write(root.path().join("dist/large.bin"), &bytes).unwrap();
    let gateway = serving(root.path()).await;
    let answer = gateway.get("/large.bin").await;
    assert_eq!(
        (answer.status(), answer.head.one("content-type")),
        (200, Some("application/octet-stream"))
    );
    assert!(answer.body == bytes);
    let part = gateway.get("/large.bin").header("Range", "bytes=2999990-").await;
    assert_eq!((part.status(), &part.body[..]), (206, &bytes[2_999_990..]));
}

/// As reproducible builds have it: that one release has the same size as the next says nothing.
#[tokio::test]
async fn files_without_a_date_have_no_tag() {
    let root = site();
    let page = root.path().join("dist/index.html");
    for at in [0, 1] {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        fs::File::options()
            .write(true)
            .open(&page)
            .unwrap()
            .set_modified(at)
            .unwrap();
        let gateway = serving(root.path()).await;
        let answer = gateway.get("/index.html").await;
        assert_eq!((answer.status(), answer.text()), (200, "<h1>app</h1>"));
        assert!(
            !answer.head.has("etag") && !answer.head.has("last-modified"),
            "{:?}",
            answer.head
        );
    }
}

#[tokio::test]
async fn what_both_releases_have_is_there_while_the_link_is_turned() {
    let root = site();
    let at = |name: &str| root.path().join(name);
    fs::rename(at("dist"), at("one")).unwrap();
    fs::create_dir(at("two")).unwrap();
    fs::write(at("two/notes.txt"), "second").unwrap();
    symlink("one", at("dist")).unwrap();
    let gateway = serving(root.path()).await;
    let turning = Arc::new(AtomicBool::new(true));
    let (still, folder) = (Arc::clone(&turning), root.path().to_owned());
    let turner = thread::spawn(move || {
        for release in ["two", "one"].into_iter().cycle() {
            if !still.load(Ordering::Relaxed) {
                return;
            }
            symlink(release, folder.join("next")).unwrap();
            fs::rename(folder.join("next"), folder.join("dist")).unwrap();
        }
    });
    for _ in 0..500 {
        assert_eq!(gateway.get("/notes.txt").await.status(), 200);
    }
    turning.store(false, Ordering::Relaxed);
    turner.join().unwrap();
}

#[tokio::test]
async fn a_range_that_is_none_of_bytes_is_none() {
    let root = site();
    let gateway = serving(root.path()).await;
    for (range, status) in [("items=0-1", 200), ("Bytes=2-4", 206), ("bytes", 200), ("bytes=x", 416)] {
        let answer = gateway.get("/assets/app.js").header("Range", range).await;
        assert_eq!(answer.status(), status, "{range}");
    }
    let head = gateway
        .call("HEAD", "/assets/app.js")
        .header("Range", "bytes=2-4")
        .await;
    assert_eq!((head.status(), head.head.one("content-length")), (200, Some("10")));
    let tag = head.head.one("etag").unwrap();
    let same = gateway.get("/assets/app.js").header("If-None-Match", tag).await;
    assert_eq!((same.status(), same.head.one("vary")), (304, Some("accept-encoding")));
}

#[tokio::test]
async fn a_file_is_guarded_under_all_its_names() {
    let root = site();
    let dist = root.path().join("dist");
    for name in [
        "q3.html",
        "q3.html.br",
        "open.css",
        "open.css.gz",
        "backup.csv.gz",
        "index.html.gz",
    ] {
        fs::write(dist.join(name), name).unwrap();
    }
    let guarded = |path: &str| {
        format!(
            "[[routes]]\npath = '{path}'\nrequire = {{ roles = ['admin'] }}\nserve = '{0}'\n",
            dist.display()
        )
    };
    let routes = format!(
        "[[routes]]\npath = '/*'\nauth = 'public'\nserve = '{}'\n{}{}{}{}",
        dist.display(),
        guarded("/q3.html"),
        guarded("/backup.csv.gz"),
        guarded("/docs/index.html"),
        guarded("/"),
    );
    let gateway = Setup::default().with(&routes).start().await;
    let ask = async |path: &str| {
        let answer = gateway.get(path).header("accept-encoding", "br, gzip").await;
        (answer.status(), answer.text().to_owned())
    };
    for (path, status) in [
        ("/q3.html", 401),
        ("/q3.html.br", 404),
        ("/q3.html%2Ebr", 404),
        ("/q3%2Ehtml.br", 404),
        ("/backup.csv.gz", 401),
        ("/backup.csv", 404),
        ("/docs/index.html", 401),
        ("/docs/", 404),
        ("/", 401),
        ("/index.html", 404),
        ("/index.html.gz", 404),
    ] {
        assert_eq!(ask(path).await.0, status, "{path}");
    }
    assert_eq!(
        ask("/open.css").await,
        (200, "open.css.gz".to_owned()),
        "others are served as they were"
    );
    assert_eq!(ask("/open.css.gz").await, (200, "open.css.gz".to_owned()));
    assert_eq!(ask("/notes.txt").await, (200, "café".to_owned()));
}

#[tokio::test]
async fn a_file_is_guarded_under_the_name_of_a_link_that_leads_to_it() {
    let root = site();
    let dist = root.path().join("dist");
    fs::create_dir_all(dist.join("secret/a b")).unwrap();
    for name in ["secret/k.txt", "secret/k.txt.gz", "secret/a b/k.txt", "open.txt"] {
        fs::write(dist.join(name), name).unwrap();
    }
    for (to, link) in [
        ("secret", "link"),
        ("secret/k.txt", "k.txt"),
        ("secret/a b/k.txt", "docs/k.txt"),
        ("open.txt", "also.txt"),
    ] {
        let to = dist.join(to);
        symlink(to, dist.join(link)).unwrap();
    }
    let at = |path: &str, rules: &str| format!("[[routes]]\npath = '{path}'\nserve = '{}'\n{rules}\n", dist.display());
    let routes = [
        at("/*", "auth = 'public'"),
        at("/secret/*", ""),
        at("/files/*", "auth = 'public'\nstrip_prefix = '/files'"),
        at("/files/secret/*", "strip_prefix = '/files'"),
    ];
    let gateway = Setup::default().with(&routes.concat()).start().await;
    for (path, status) in [
        ("/secret/k.txt", 401),
        ("/link/k.txt", 404),
        ("/link/k.txt.gz", 404),
        ("/k.txt", 404),
        ("/docs/k.txt", 404),
        ("/also.txt", 200),
        ("/files/secret/k.txt", 401),
        ("/files/link/k.txt", 404),
        ("/files/k.txt", 404),
        ("/files/also.txt", 200),
    ] {
        let answer = gateway.get(path).header("accept-encoding", "gzip").await;
        assert_eq!(answer.status(), status, "{path}");
    }
}

/// As `serve = "dist"` beside the `gateway.toml` of the folder in which the gateway is started.
#[tokio::test]
async fn a_folder_is_found_from_where_the_gateway_was_started() {
    let around = Surroundings::new().await;
    fs::create_dir(around.file("dist")).unwrap();
    fs::write(around.file("dist/notes.txt"), "found").unwrap();
    around.config("[[routes]]\npath = '/*'\nauth = 'public'\nserve = 'dist'");
    for config in ["gateway.toml", "./gateway.toml"] {
        let mut program = Program::start(&["serve", "--config", config], &[], around.folder.path());
        let (public, _) = program.serving().await;
        let answer = Call::new(public, SITE, "GET", "/notes.txt").await;
        assert_eq!((answer.status(), answer.text()), (200, "found"), "{config}");
    }
}
