//! Other proxies, each set up as its users would for speed: kept connections on both sides, as many workers as cores.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    entries::{Certificate, Entry, Place, Process},
    http,
};

pub(crate) fn nginx(folder: &TempDir, upstream: SocketAddr, certificate: &Certificate) -> Option<(Process, Entry)> {
    let (plain, tls) = (http::free_addr(), http::free_addr());
    let (pem, key) = (certificate.pem.display(), certificate.key.display());
    let folder = folder.path().join("nginx");
    fs::create_dir(&folder).unwrap();
    // HTTP/2 is a word of `listen`, for versions before 1.25.1 know no other.
    let config = format!(
        "daemon off; worker_processes auto; pid nginx.pid; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log /dev/null combined buffer=64k flush=1s;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            keepalive_requests 1000000;
            client_max_body_size 0;
            proxy_request_buffering off;
            upstream app {{ server {upstream}; keepalive 128; keepalive_requests 1000000; }}
            server {{
                listen {plain} reuseport;
                listen {tls} ssl http2 reuseport;
                ssl_certificate {pem};
                ssl_certificate_key {key};
                ssl_protocols TLSv1.2 TLSv1.3;
                ssl_session_cache off;
                location / {{
                    proxy_pass http://app;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                    proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_max_temp_file_size 0;
                }}
            }}
        }}"
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder).args(["-c", "nginx.conf"]);
    start("nginx", (plain, Some(tls)), command)
}

pub(crate) fn haproxy(folder: &TempDir, upstream: SocketAddr, certificate: &Certificate) -> Option<(Process, Entry)> {
    let (plain, tls) = (http::free_addr(), http::free_addr());
    let together = certificate.together.display();
    let config = folder.path().join("haproxy.cfg");
    let text = format!(
        "global\n maxconn 4096\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n option forwardfor\n\
         frontend in\n bind {plain}\n bind {tls} ssl crt {together} alpn h2,http/1.1\n default_backend app\n\
         backend app\n http-reuse always\n server app {upstream}\n"
    );
    fs::write(&config, text).unwrap();
    start("haproxy", (plain, Some(tls)), haproxy_with(&config))
}

/// HAProxy that looks at nothing and moves bytes, without copying them where the kernel can: what nobody in between can
/// do without.
pub(crate) fn relay(folder: &TempDir, upstream: SocketAddr, _certificate: &Certificate) -> Option<(Process, Entry)> {
    let plain = http::free_addr();
    let config = folder.path().join("relay.cfg");
    let text = format!(
        "global\n maxconn 4096\n\
         defaults\n mode tcp\n option splice-auto\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen in\n bind {plain}\n server app {upstream}\n"
    );
    fs::write(&config, text).unwrap();
    start("relay", (plain, None), haproxy_with(&config))
}

fn haproxy_with(config: &Path) -> Command {
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(config);
    command
}

/// `None`: not installed.
fn start(
    name: &'static str,
    (plain, tls): (SocketAddr, Option<SocketAddr>),
    mut command: Command,
) -> Option<(Process, Entry)> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let Ok(child) = child else {
        println!("{name} is not installed: no figures for it");
        return None;
    };
    let process = Process(child);
    http::wait_for(plain, name);
    let pid = process.0.id();
    let place = |addr| Place { addr, pid };
    let entry = Entry {
        name,
        plain: Some(place(plain)),
        tls: tls.map(place),
    };
    Some((process, entry))
}
