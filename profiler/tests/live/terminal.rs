//! A terminal for programs that want one: tmux, with a server of its own.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use tempfile::TempDir;

use crate::support::HANG;

/// A terminal with a shell that runs one command in a folder of its own, and then tells how it ended.
pub(crate) struct Terminal {
    name: String,
    pub(crate) folder: TempDir,
}

impl Terminal {
    /// Starts a command line of the shell on a screen of this size.
    pub(crate) fn start(command: &str, width: u16, height: u16) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = TempDir::new().unwrap();
        let terminal = Self { name: format!("heapscope-{}-{number}", std::process::id()), folder };
        // What stands behind it shows the terminal as the command left it; `cat` then keeps the screen.
        let script = format!(
            "sh -c 'echo $$ > pid; exec {command}'; echo \"status $?\"; stty -a | tr -s ' ;' '\\n' | \
             grep -xE -- '-?(echo|icanon)' | tr '\\n' ' '; exec cat"
        );
        let size = [width.to_string(), height.to_string()];
        let folder = terminal.folder.path().to_str().unwrap();
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &size[0],
            "-y",
            &size[1],
            "-c",
            folder,
            &script,
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.name]).args(arguments);
        // Whatever the tests run in, this is a terminal with colours, and no session inside another one.
        tmux.env("TERM", "xterm-256color").env("TMUX_TMPDIR", self.folder.path());
        tmux.env_remove("TMUX").env_remove("NO_COLOR").env("LC_ALL", "C.UTF-8");
        let output = tmux.output().unwrap();
        assert!(output.status.success(), "{tmux:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types keys, each as tmux calls it.
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types text.
    pub(crate) fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> Vec<String> {
        self.tmux(&["capture-pane", "-p"]).lines().map(str::to_owned).collect()
    }

    /// Whether anything on the screen has another colour than the terminal's own (ECMA-48, SGR).
    pub(crate) fn has_colours(&self) -> bool {
        let screen = self.tmux(&["capture-pane", "-p", "-e"]);
        let sequences = screen.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
        let mut numbers =
            sequences.flat_map(|(sequence, _)| sequence.split(';')).filter_map(|n| n.parse().ok());
        numbers.any(|number: u32| matches!(number, 30..=38 | 40..=48 | 90..=107))
    }

    /// Waits until the screen is as it should be, and returns it.
    pub(crate) fn until(&self, what: &str, is_right: impl Fn(&[String]) -> bool) -> Vec<String> {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if is_right(&screen) {
                return screen;
            }
            assert!(start.elapsed() < HANG, "never: {what}: {screen:#?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Waits for a text anywhere on the screen.
    pub(crate) fn shows(&self, text: &str) -> Vec<String> {
        self.until(text, |screen| screen.iter().any(|line| line.contains(text)))
    }

    /// The process id of the command.
    pub(crate) fn pid(&self) -> u32 {
        fs::read_to_string(self.folder.path().join("pid")).unwrap().trim().parse().unwrap()
    }

    /// Waits until the command has ended with this status, and looks whether the terminal is as it was.
    pub(crate) fn is_restored(&self, status: i32) -> Vec<String> {
        let screen = self.shows(&format!("status {status}"));
        self.until("the terminal's settings", |screen| {
            screen.iter().any(|line| line.contains("icanon echo"))
        });
        let [alternate, cursor] = ["#{alternate_on}", "#{cursor_flag}"]
            .map(|format| self.tmux(&["display-message", "-p", format]).trim().to_owned());
        assert_eq!((alternate.as_str(), cursor.as_str()), ("0", "1"), "{screen:#?}");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut tmux = Command::new("tmux");
        let _ = tmux.args(["-L", &self.name, "kill-server"]).env("TMUX_TMPDIR", self.folder.path()).output();
    }
}
