//! What the environment says of sockets that whoever started this process has opened for it (sd_listen_fds(3)).

use std::process;

/// `LISTEN_FDS` and what belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PassedSockets {
    /// They are descriptors 3, 4, … in this order; where nothing is said of one, its name is empty.
    pub names: Vec<String>,
}

/// Why there are no sockets for this process, as a sentence's end.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotPassed {
    #[error("none was handed over (LISTEN_FDS is not set)")]
    Unset,
    /// It was set for a process before this one, such as a shell's script.
    #[error("what was handed over is for process {0:?} (LISTEN_PID), and this is {own}", own = process::id())]
    ForAnother(String),
    #[error("LISTEN_FDS is {0:?}, which is no number of sockets")]
    Unreadable(String),
}

/// More than anybody opens; the number comes from outside.
const MOST: usize = 1024;

/// The sockets that were passed to this process.
pub fn passed_sockets() -> Result<PassedSockets, NotPassed> {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    judge(&variable, process::id())
}

fn judge(variable: &dyn Fn(&str) -> Option<String>, own: u32) -> Result<PassedSockets, NotPassed> {
    let count = variable("LISTEN_FDS").ok_or(NotPassed::Unset)?;
    // Variables are inherited, descriptors 3 and on are something else in another process.
    let process = variable("LISTEN_PID").unwrap_or_default();
    if process.parse() != Ok(own) {
        return Err(NotPassed::ForAnother(process));
    }
    let Some(count) = count.parse().ok().filter(|count| *count <= MOST) else {
        return Err(NotPassed::Unreadable(count));
    };
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned);
    let names = names.chain(std::iter::repeat(String::new())).take(count).collect();
    Ok(PassedSockets { names })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(fds: Option<&str>, pid: Option<&str>, names: Option<&str>) -> Result<Vec<String>, NotPassed> {
        let variable = |name: &str| match name {
            "LISTEN_FDS" => fds.map(str::to_owned),
            "LISTEN_PID" => pid.map(str::to_owned),
            "LISTEN_FDNAMES" => names.map(str::to_owned),
            _ => None,
        };
        judge(&variable, 4711).map(|passed| passed.names)
    }

    #[test]
    fn sockets_are_ours_if_they_were_passed_to_this_very_process() {
        let ours = Some("4711");
        let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(judged(Some("2"), ours, Some("http:https")), names(&["http", "https"]));
        assert_eq!(judged(Some("3"), ours, Some("http")), names(&["http", "", ""]));
        assert_eq!(judged(Some("1"), ours, Some("http:https")), names(&["http"]));
        assert_eq!(judged(Some("1"), ours, None), names(&[""]));
        assert_eq!(judged(Some("0"), ours, None), names(&[]));
        assert_eq!(judged(None, ours, None), Err(NotPassed::Unset));
        for other in [None, Some(""), Some("4712"), Some("all")] {
            let refused = judged(Some("1"), other, Some("http"));
            assert_eq!(
                refused,
                Err(NotPassed::ForAnother(other.unwrap_or_default().to_owned()))
            );
        }
        for count in ["", "-1", "x", "1000000"] {
            assert_eq!(
                judged(Some(count), ours, None),
                Err(NotPassed::Unreadable(count.to_owned()))
            );
        }
    }
}
