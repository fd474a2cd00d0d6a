//! Child processes that can't outlive us, not even when we are killed.
//!
//! Each runs below a `/bin/sh` that holds the reading end of a pipe. The kernel closes our end however we die; the
//! shell then ends the child. Shell and child are a process group of their own, so that Ctrl-C on the terminal reaches
//! us alone and we decide the order in which things stop.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::clock::monotonic;

/// Runs `"$@"` and ends it with the signal in `$on_close` when the pipe closes; then `$remove_at_end` is removed as
/// well, since nobody is left to do it. The pipe is watched by a shell of its own: one that waits for a child can't
/// read. It was killed by us, with a status above 128, if the program ended by itself; once it has heard that the pipe is
/// closed, it can't be.
const ONE_PROGRAM: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null &
child=$!
{ read -r _ <&3; trap '' TERM; kill -"$on_close" "$child"; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$child"
status=$?
kill "$watcher" 2>/dev/null
wait "$watcher"
if [ $? -lt 128 ] && [ -n "$remove_at_end" ]; then rm -rf "$remove_at_end"; fi
exit "$status"
"#;

/// Runs a command line and ends it with all that it started, which is what is in the process group; by force if it
/// takes too long. The shell that reads the line hears the signal as well: its trap makes it wait for the program that
/// it runs, which may have things to finish, and run no other after it. Nothing is left when the line ends by itself.
const COMMAND_LINE: &str = r#"
exec 3<&0
trap : TERM
/bin/sh -c 'trap "exit 143" TERM; eval "$1"' command "$1" 3<&- </dev/null &
child=$!
{ read -r _ <&3; trap '' TERM; kill -TERM 0; sleep 5; kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
trap '' TERM
kill -TERM 0
exit "$status"
"#;

/// Whom to run a child as, where we are root and it must not be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Makes `command` run as this user, from a folder that everybody can enter.
    pub fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid).current_dir("/");
    }
}

/// A child that ends when this is dropped, or when we die.
#[derive(Debug)]
pub struct Supervised {
    shell: Child,
    /// Closing it is the word to stop.
    pipe: Option<ChildStdin>,
    /// How long [`Supervised::stop`] waits.
    patience: Duration,
}

/// What becomes of a supervised program at its end.
#[derive(Clone, Copy, Debug)]
pub struct Ending<'e> {
    /// `INT`, `QUIT`, `TERM`.
    pub signal: &'static str,
    /// A folder that has no purpose afterwards.
    pub remove: Option<&'e OsStr>,
    pub patience: Duration,
}

impl Supervised {
    /// Runs `program` with `args`; its output goes to `output`.
    pub fn program(
        program: &OsStr,
        args: &[&OsStr],
        user: Option<&User>,
        ending: Ending<'_>,
        output: (Stdio, Stdio),
    ) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", ONE_PROGRAM, "supervisor"]).arg(program).args(args);
        shell
            .env("on_close", ending.signal)
            .env("remove_at_end", ending.remove.unwrap_or_default());
        if let Some(user) = user {
            user.run(&mut shell);
        }
        Self::start(shell, output, ending.patience)
    }

    /// Runs a command line as a shell reads it.
    pub fn command_line<'v>(
        line: &str,
        variables: impl IntoIterator<Item = (&'v str, &'v str)>,
        output: (Stdio, Stdio),
    ) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", COMMAND_LINE, "supervisor", line]).envs(variables);
        Self::start(shell, output, Duration::from_secs(8))
    }

    fn start(mut shell: Command, (stdout, stderr): (Stdio, Stdio), patience: Duration) -> io::Result<Self> {
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe, patience })
    }

    /// What the child writes, if its output was asked for as a pipe; once each.
    pub fn take_output(&mut self) -> (Option<std::process::ChildStdout>, Option<std::process::ChildStderr>) {
        (self.shell.stdout.take(), self.shell.stderr.take())
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.shell.try_wait()
    }

    /// Tells it to stop and waits until it has. Blocks.
    pub fn stop(&mut self) -> io::Result<()> {
        self.pipe = None;
        let begun: Instant = monotonic();
        while self.shell.try_wait()?.is_none() {
            if begun.elapsed() > self.patience {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("it did not stop within {:?}", self.patience),
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // It has been told; who wants to know whether it obeyed calls `stop`.
        let _ = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> (Stdio, Stdio) {
        (Stdio::null(), Stdio::null())
    }

    #[test]
    fn a_command_line_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("pid");
        let line = format!("sleep 1000 & echo $! > {}; sleep 1000", marker.display());
        let mut child = Supervised::command_line(&line, [], null()).unwrap();
        let begun = monotonic();
        let pid = loop {
            match std::fs::read_to_string(&marker) {
                Ok(pid) if pid.ends_with('\n') => break pid,
                _ => assert!(begun.elapsed() < Duration::from_secs(10), "the command did not start"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert!(child.ended().unwrap().is_none());
        child.stop().unwrap();
        let is_alive = || {
            let asked = Command::new("/bin/sh")
                .args([
                    "-c",
                    "kill -0 \"$1\" 2>/dev/null && ! grep -q 'State:.Z' /proc/$1/status",
                    "sh",
                    pid.trim(),
                ])
                .status();
            asked.unwrap().success()
        };
        // It has had its signal, and dies of it when a processor is free.
        let stopped = monotonic();
        while is_alive() {
            assert!(stopped.elapsed() < Duration::from_secs(10), "a grandchild survived");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_command_may_finish_what_it_does_but_begin_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let line = format!(
            "sh -c 'trap \"sleep 0.3; echo finished >> {0}; exit\" TERM; echo up >> {0}; while :; do sleep 0.05; done'; \
             echo begun >> {0}",
            log.display()
        );
        let mut child = Supervised::command_line(&line, [], null()).unwrap();
        let begun = monotonic();
        while !log.exists() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the command did not start");
            thread::sleep(Duration::from_millis(5));
        }
        child.stop().unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "up\nfinished\n");
    }

    #[test]
    fn a_program_is_ended_and_its_folder_removed() {
        let folder = tempfile::tempdir().unwrap().keep();
        let ending = Ending {
            signal: "TERM",
            remove: Some(folder.as_os_str()),
            patience: Duration::from_secs(10),
        };
        // One process: a child of the shell's would outlive it.
        let sleeping = ["-c", "exec sleep 1000"].map(OsStr::new);
        let mut child = Supervised::program("/bin/sh".as_ref(), &sleeping, None, ending, null()).unwrap();
        assert!(child.ended().unwrap().is_none());
        child.stop().unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_program_that_ends_by_itself_is_noticed() {
        let ending = Ending {
            signal: "TERM",
            remove: None,
            patience: Duration::from_secs(10),
        };
        let failing = ["-c", "exit 7"].map(OsStr::new);
        let mut child = Supervised::program("/bin/sh".as_ref(), &failing, None, ending, null()).unwrap();
        let begun = monotonic();
        let status = loop {
            if let Some(status) = child.ended().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "its end was not noticed");
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(7));
    }
}
