//! A program that is spoken with line by line, with a bound on every wait.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How a message about something that took too long begins.
pub(super) const TIMED_OUT: &str = "timed out";

/// Runs until it is ended or dropped.
pub(super) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    heard: String,
}

impl Program {
    /// Starts it with pipes for input, output and errors.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let shown = command.get_program().to_string_lossy().into_owned();
        // What it starts is ended with it, should it hang.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{shown} does not start"))?;
        let (sender, lines) = channel();
        pump(child.stdout.take().context("no output")?, sender.clone());
        pump(child.stderr.take().context("no errors")?, sender);
        let input = child.stdin.take();
        Ok(Self { child, input, lines, heard: String::new() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its input.
    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        self.input
            .as_mut()
            .context("its input is closed")?
            .write_all(text.as_bytes())
            .context("it does not listen")
    }

    /// Waits for a line that contains this.
    pub(super) fn hear(&mut self, part: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if self.heard.len() < 1 << 24 {
                        self.heard += &line;
                    }
                    if line.contains(part) {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("ended without saying `{part}`; {}", self.last_words())
                }
                Err(RecvTimeoutError::Timeout) => bail!(
                    "{TIMED_OUT}: `{part}` was not said within {} s; {}",
                    patience.as_secs(),
                    self.last_words()
                ),
            }
        }
    }

    /// The last line that it said.
    pub(super) fn last_words(&mut self) -> String {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(50)) {
            self.heard += &line;
        }
        let said = self.heard.lines().rev().find(|line| !line.trim().is_empty());
        said.map_or_else(|| "nothing was said".to_owned(), |line| line.trim().to_owned())
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Closes its input, sends it a signal if one is given, and waits for its end; all that it said.
    pub(super) fn end(mut self, signal: Option<&str>) -> Result<String> {
        self.input = None;
        if let Some(signal) = signal {
            let _ = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        }
        let deadline = Instant::now() + super::workloads::PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{TIMED_OUT}: it does not end; {}", self.last_words());
            }
            thread::sleep(Duration::from_millis(5));
        }
        // Descendants may hold the pipes for ever; what has been said is there.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
            self.heard += &line;
        }
        Ok(std::mem::take(&mut self.heard))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.pid())])
            .stderr(Stdio::null())
            .status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pump(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    });
}
