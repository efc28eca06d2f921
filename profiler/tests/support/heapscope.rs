//! heapscope itself, run as its users run it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    fixture,
    program::{Lines, send, shell_status, wait},
    report::Report,
    until,
};

/// A command line of heapscope. A folder of its own is its current folder. `run` has every block recorded, unless the
/// options say something else.
pub(crate) fn heapscope<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let words: Vec<_> = arguments.iter().filter_map(|word| word.as_ref().to_str()).collect();
    match words.split_first() {
        Some((&"run", options)) => {
            let mut command = as_users_run_it(&["run"]);
            command.args(unbudgeted(options)).args(arguments.iter().skip(1));
            command
        }
        _ => as_users_run_it(arguments),
    }
}

/// A command line of heapscope without anything added.
pub(crate) fn as_users_run_it<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heapscope"));
    command.args(arguments);
    command
}

/// What has every block recorded whatever that costs, for tests that count them; nothing where the options say something
/// else.
fn unbudgeted(options: &[&str]) -> &'static [&'static str] {
    let says = |option: &&str| ["--budget", "--exact", "--sample", "--mode"].contains(option);
    if options.iter().any(says) { &[] } else { &["--budget", "off"] }
}

/// heapscope while it watches.
pub(crate) struct Heapscope {
    child: Child,
    output: Lines,
    errors: Lines,
    heard: String,
    folder: TempDir,
}

/// What heapscope left.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// As a shell tells it.
    pub(crate) status: i32,
    pub(crate) output: String,
    pub(crate) errors: String,
    /// Where a report was written.
    pub(crate) report: Option<Report>,
}

impl Heapscope {
    /// Attaches to a process and waits until the probes are live.
    pub(crate) fn attach(pid: u32, options: &[&str]) -> Self {
        let mut heapscope = Self::start(
            heapscope(&["attach", &pid.to_string(), "-o", "report.json"])
                .args(options)
                .args(unbudgeted(options)),
        );
        heapscope.hear("attached");
        heapscope
    }

    /// Starts a command of heapscope without input.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command.stdin(Stdio::null()))
    }

    /// Starts a command of heapscope with the standard input that it has been given.
    pub(crate) fn start_with(command: &mut Command) -> Self {
        let folder = TempDir::new().unwrap();
        let mut child =
            command.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Lines::of(child.stdout.take().unwrap());
        let errors = Lines::of(child.stderr.take().unwrap());
        Self { child, output, errors, heard: String::new(), folder }
    }

    /// Waits for a line on standard error that begins so.
    pub(crate) fn hear(&mut self, beginning: &str) -> String {
        loop {
            let Some(line) = self.errors.next() else {
                panic!("heapscope ended without saying `{beginning}`: {}", self.heard)
            };
            self.heard += &format!("{line}\n");
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    /// The next line on standard output.
    pub(crate) fn hear_output(&self) -> String {
        self.output.next().expect("no more came on standard output")
    }

    /// Writes to its standard input, which must be a pipe. That nobody reads it is no failure.
    pub(crate) fn write(&self, text: &str) {
        let _ = self.child.stdin.as_ref().unwrap().write_all(text.as_bytes());
    }

    /// Waits until it has taken up all that a program has mapped so far. `map` has the program map a file as code.
    pub(crate) fn catch_up(&self, mut map: impl FnMut(&Path)) {
        let folder = TempDir::new().unwrap();
        let library = fixture::build("plugin.c", &["-shared", "-fPIC"]);
        // The look that finds the first file finds what was mapped before; when the next one finds the second, that is
        // in the kernel.
        for name in ["first.so", "second.so"] {
            let mark = folder.path().join(name);
            fs::copy(&library, &mark).unwrap();
            map(&mark);
            until("heapscope opens a file that was mapped", || self.has_open(&mark));
        }
    }

    fn has_open(&self, path: &Path) -> bool {
        let mut descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        descriptors
            .any(|entry| entry.is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path)))
    }

    pub(crate) fn close_input(&mut self) {
        self.child.stdin = None;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file in its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ctrl-C, and the report, without which the test fails.
    pub(crate) fn stop(self) -> Report {
        send(self.pid(), Signal::INT);
        self.report()
    }

    /// Waits for its end and reads the report.
    pub(crate) fn report(self) -> Report {
        let outcome = self.finish();
        assert_eq!(outcome.status, 0, "{}", outcome.errors);
        outcome.report.expect("no report was written")
    }

    /// Ctrl-C, and the reports: the target's, and those of its children with these numbers.
    pub(crate) fn stop_family<Number: ToString, const CHILDREN: usize>(
        self,
        numbers: [Number; CHILDREN],
    ) -> (Report, [Report; CHILDREN]) {
        send(self.pid(), Signal::INT);
        self.end_of_family(numbers)
    }

    /// The same when it ends by itself.
    pub(crate) fn end_of_family<Number: ToString, const CHILDREN: usize>(
        self,
        numbers: [Number; CHILDREN],
    ) -> (Report, [Report; CHILDREN]) {
        let files = numbers.map(|number| self.file(&format!("report.{}.json", number.to_string())));
        let (outcome, reports) = self.finish_with(files);
        assert_eq!(outcome.status, 0, "{}", outcome.errors);
        let reports = reports.map(|json| serde_json::from_str(&json).unwrap());
        (outcome.report.expect("no report was written"), reports)
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Outcome {
        self.finish_with([]).0
    }

    /// Waits for its end and reads what it wrote into these files.
    pub(crate) fn finish_with<const FILES: usize>(
        mut self,
        files: [PathBuf; FILES],
    ) -> (Outcome, [String; FILES]) {
        let status = shell_status(wait(&mut self.child));
        let output = self.output.rest();
        let errors = std::mem::take(&mut self.heard) + &self.errors.rest();
        assert!(!errors.contains("panicked"), "{errors}");
        let report = fs::read(self.file("report.json")).ok().filter(|json| !json.is_empty());
        let report = report.map(|json| {
            serde_json::from_slice(&json)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json)))
        });
        let files =
            files.map(|file| fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {errors}")));
        (Outcome { status, output, errors, report }, files)
    }
}

impl Drop for Heapscope {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
