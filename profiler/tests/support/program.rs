//! A program under test: started with pipes, spoken with line by line, ended with the test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use super::HANG;

/// Lines of a pipe, as they come.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    /// Reads the pipe to its end in a thread, so that its writer never waits for us.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                // A receiver that has gone wants no more; the pipe is still to be emptied.
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        });
        Self(receiver)
    }

    /// The next line without its end; `None` behind the last.
    pub(crate) fn next(&self) -> Option<String> {
        let mut line = self.receive()?;
        if line.ends_with('\n') {
            line.pop();
        }
        Some(line)
    }

    fn receive(&self) -> Option<String> {
        match self.0.recv_timeout(HANG) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line came for {HANG:?}"),
        }
    }

    /// All text that is still to come.
    pub(crate) fn rest(&self) -> String {
        std::iter::from_fn(|| self.receive()).collect()
    }
}

/// A running program. It is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines,
}

impl Program {
    /// Starts it with pipes for its standard input and output.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take();
        let output = Lines::of(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// As [`Program::start`], and waits for its first line, which must be this one.
    pub(crate) fn start_until(command: &mut Command, first: &str) -> Self {
        let program = Self::start(command);
        assert_eq!(program.hear(), first, "{command:?}");
        program
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next line that it prints.
    pub(crate) fn hear(&self) -> String {
        self.output.next().expect("the program printed no more")
    }

    /// Says a line and hears the answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Ends its input.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Whether it can still be spoken to.
    pub(crate) fn has_input(&self) -> bool {
        self.input.is_some()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// All that it has still printed. For a program that has ended.
    pub(crate) fn rest(&self) -> String {
        self.output.rest()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child's end.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    // A handle that is not reaped yet cannot stand for another process.
    if let Ok(pidfd) = pidfd_open(pid(child.id()), PidfdFlags::empty()) {
        let deadline = Instant::now() + HANG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left.max(Duration::from_millis(1))).unwrap();
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Ok(0) => panic!("process {} has not ended for {HANG:?}", child.id()),
                Ok(_) => break,
                Err(_) => {}
            }
        }
    }
    child.wait().unwrap()
}

/// The exit status as a shell tells it: 128 and the signal for a program that was killed.
pub(crate) fn shell_status(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Sends a signal.
pub(crate) fn send(to: u32, signal: Signal) {
    kill_process(pid(to), signal).unwrap();
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

/// The letter of `/proc/PID/stat`: `T` stopped by a signal, `t` by a tracer, `Z` ended.
pub(crate) fn state(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap()[..1].to_owned()
}
