//! What the terminal says once everything runs: where things are, and what to try.

use std::{fmt, net::SocketAddr, path::Path};

use crate::config::{Access, Config};

pub(super) struct Welcome<'w> {
    pub(super) config: &'w Config,
    pub(super) inbox: SocketAddr,
    pub(super) app: App<'w>,
    pub(super) database_url: &'w str,
    /// `None`: the database is the user's own.
    pub(super) data: Option<&'w Path>,
    pub(super) home: &'w Path,
}

/// What stands behind the gateway.
#[derive(Clone, Copy)]
pub(super) enum App<'w> {
    /// The command of `--with`; its output is marked with `app |`.
    Started(&'w str),
    /// The upstream that is part of `vestibule dev`.
    Mirror,
    /// Nothing was started: whoever wrote the configuration does that.
    Elsewhere,
}

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateway = self.config.server.public_url.as_str();
        let auth = format!("{gateway}{}", self.config.auth.base_path);
        let inbox = format!("http://localhost:{}", self.inbox.port());
        writeln!(f)?;
        writeln!(f, "  Vestibule is ready.")?;
        writeln!(f)?;
        writeln!(f, "  Gateway    {gateway}")?;
        writeln!(f, "  Inbox      {inbox}")?;
        match self.app {
            App::Started(command) => writeln!(f, "  App        {command}")?,
            App::Mirror => writeln!(f, "  App        answers with what it received")?,
            App::Elsewhere => {
                for (name, endpoints) in self.endpoints() {
                    writeln!(f, "  App        start `{name}` yourself, listening on {endpoints}")?;
                }
                writeln!(f, "             or let --with COMMAND start it")?;
            }
        }
        writeln!(f, "  Database   {}", self.database_url)?;
        if let Some(data) = self.data {
            writeln!(f, "             in {}", data.display())?;
        }
        writeln!(f)?;
        writeln!(f, "  Try, in another terminal:")?;
        writeln!(f)?;
        writeln!(
            f,
            "    curl {auth}/sign-up/email -H 'content-type: application/json' \\"
        )?;
        writeln!(
            f,
            "      -d '{{\"name\":\"Ada\",\"email\":\"ada@example.com\",\"password\":\"correct horse battery\"}}'"
        )?;
        writeln!(
            f,
            "    curl '{inbox}/latest.txt?to=ada@example.com'    # and open the link in it"
        )?;
        writeln!(
            f,
            "    curl -c cookies.txt {auth}/sign-in/email -H 'content-type: application/json' \\"
        )?;
        writeln!(
            f,
            "      -d '{{\"email\":\"ada@example.com\",\"password\":\"correct horse battery\"}}'"
        )?;
        if let Some(path) = self.protected_path() {
            writeln!(f, "    curl -b cookies.txt {gateway}{path}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  Ctrl-C stops everything. Users and mails stay in {}; delete it to begin anew.",
            self.home.display()
        )
    }
}

impl Welcome<'_> {
    /// Each upstream's name, and where the configuration says that it listens.
    fn endpoints(&self) -> impl Iterator<Item = (&str, String)> {
        self.config.upstreams.iter().map(|upstream| {
            let endpoints: Vec<String> = upstream.endpoints.iter().map(ToString::to_string).collect();
            (upstream.name.as_str(), endpoints.join(", "))
        })
    }

    /// Some path for which one has to be signed in.
    fn protected_path(&self) -> Option<String> {
        let route = self.config.routes.iter().find(|route| {
            matches!(route.access, Access::Required(_)) && !route.path.text.contains('{') && route.host.is_none()
        })?;
        Some(match route.path.text.strip_suffix("/*") {
            Some(parent) => format!("{parent}/me"),
            None => route.path.text.clone(),
        })
    }
}
