//! What the launcher's tests share: compile a program, start it, follow it, talk with it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use heapscope::sys::launch::{Event, Launch, LaunchError, Stopped};

/// A bound that turns a hang into a failure; nothing waits for it to pass.
const HANG: Duration = Duration::from_secs(30);

/// An event without its hold on the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// With the executable.
    Exec(PathBuf),
    Loading,
    Running,
    Ending,
    Exited(i32),
    Killed(i32),
}

pub(crate) fn command<S: AsRef<OsStr>>(words: &[S]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// Starts the program; `None`, with the reason printed, where ptrace is forbidden.
pub(crate) fn start<S: AsRef<OsStr>>(test: &str, words: &[S]) -> Option<Launch> {
    match Launch::spawn(&command(words), &[]) {
        Ok(launch) => Some(launch),
        Err(error @ LaunchError::TracingRefused { .. }) => {
            skip(test, &error);
            None
        }
        Err(error) => panic!("{test}: {error}"),
    }
}

/// The next event, split into what it is and the hold on the program.
pub(crate) fn next(launch: &Launch) -> Option<(Seen, Option<Stopped>)> {
    let executable = || fs::read_link(format!("/proc/{}/exe", launch.pid())).unwrap_or_default();
    match launch.events().recv_timeout(HANG) {
        Ok(Event::Exec(stopped)) => Some((Seen::Exec(executable()), Some(stopped))),
        Ok(Event::Loading(stopped)) => Some((Seen::Loading, Some(stopped))),
        Ok(Event::Running(stopped)) => Some((Seen::Running, Some(stopped))),
        Ok(Event::Ending(stopped)) => Some((Seen::Ending, Some(stopped))),
        Ok(Event::Exited(status)) => Some((Seen::Exited(status), None)),
        Ok(Event::Killed(signal)) => Some((Seen::Killed(signal), None)),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
            panic!("the program hangs: {}", state(launch.pid()))
        }
    }
}

/// Resumes at every event until `last` has been seen, or to the end; `look` sees each while the program is held.
pub(crate) fn follow(launch: &Launch, last: Option<&Seen>, mut look: impl FnMut(&Seen)) -> Vec<Seen> {
    let mut all = Vec::new();
    while let Some((seen, stopped)) = next(launch) {
        look(&seen);
        if let Some(stopped) = stopped {
            stopped.resume();
        }
        all.push(seen);
        if all.last() == last {
            break;
        }
    }
    all
}

/// As [`follow`], to the end.
pub(crate) fn follow_to_end(launch: &Launch) -> Vec<Seen> {
    follow(launch, None, |_| ())
}

/// How often `wanted` occurs.
pub(crate) fn count(all: &[Seen], wanted: &Seen) -> usize {
    all.iter().filter(|seen| *seen == wanted).count()
}

/// The file names of the executables in turn.
pub(crate) fn executables(all: &[Seen]) -> Vec<String> {
    all.iter()
        .filter_map(|seen| match seen {
            Seen::Exec(path) => Some(path.file_name()?.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

/// The state letter, the tracer and the like, from /proc/PID/status.
pub(crate) fn status_field(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn state(pid: u32) -> String {
    status_field(pid, "State")
}

/// Says that a test could not run here. Not by `println!`, which the test runner keeps to itself.
pub(crate) fn skip(test: &str, reason: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "skipped: {test}: {reason}");
}

/// Gives the processor away until `condition` holds, where there is no line or pipe to wait for.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < HANG, "never: {what}");
        std::thread::yield_now();
    }
}

/// Sends a signal by its number; the shell knows real-time ones too.
pub(crate) fn send(pid: u32, signal: i32) {
    let sent = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap();
    assert!(sent.success(), "kill -{signal} {pid}: {sent}");
}

/// The mapped files with executable memory of a process, as file names.
pub(crate) fn code_files(pid: u32) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let code = maps.lines().filter(|line| line.split_ascii_whitespace().nth(1) == Some("r-xp"));
    code.filter_map(|line| Some(line.rsplit_once('/')?.1.to_owned())).collect()
}

/// Whether the C library's malloc has taken memory from the kernel.
pub(crate) fn has_heap(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("[heap]")
}

/// Compiles a fixture with `compiler`; `None`, with the reason printed, where there is no such compiler.
pub(crate) fn compile(
    test: &str,
    compiler: &str,
    source: &str,
    name: &str,
    flags: &[&str],
) -> Option<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/launch");
    let program = scratch(test).join(name);
    let compiling = Command::new(compiler)
        .arg("-o")
        .arg(&program)
        .arg(fixtures.join(source))
        .args(["-Wno-unused-result", "-pthread"])
        .args(flags)
        .current_dir(scratch(test))
        .status();
    match compiling {
        Ok(status) => assert!(status.success(), "{compiler} {source}: {status}"),
        Err(error) => {
            skip(test, &format!("{compiler}: {error}"));
            return None;
        }
    }
    Some(program)
}

/// A folder of the test's own.
pub(crate) fn scratch(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("launch").join(test);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Pipes to a program's standard input and from its standard output. The launcher hands on its own streams, so a shell
/// opens these by their names under /proc.
pub(crate) struct Talk {
    to: PipeWriter,
    from: BufReader<PipeReader>,
    their_input: PipeReader,
    their_output: PipeWriter,
}

impl Talk {
    pub(crate) fn new() -> Self {
        let (their_input, to) = io::pipe().unwrap();
        let (from, their_output) = io::pipe().unwrap();
        Self { to, from: BufReader::new(from), their_input, their_output }
    }

    /// The words that run `words` with the pipes: a shell, which executes it.
    pub(crate) fn with<S: AsRef<OsStr>>(&self, words: &[S]) -> Vec<OsString> {
        let path = |fd: i32| format!("/proc/{}/fd/{fd}", std::process::id());
        let script = format!(
            "exec \"$@\" <{} >{}",
            path(self.their_input.as_raw_fd()),
            path(self.their_output.as_raw_fd())
        );
        [command(&["/bin/sh", "-c", &script, "sh"]), command(words)].concat()
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    pub(crate) fn hear(&mut self) -> String {
        assert!(self.has_more(HANG), "the program is silent");
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether nothing arrives for some time: for what must *not* happen.
    pub(crate) fn is_silent(&self) -> bool {
        !self.has_more(Duration::from_millis(200))
    }

    fn has_more(&self, timeout: Duration) -> bool {
        let mut pipe = [PollFd::new(self.from.get_ref(), PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).unwrap();
        !self.from.buffer().is_empty() || poll(&mut pipe, Some(&timeout)).unwrap() == 1
    }
}
