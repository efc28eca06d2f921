//! A panic while the view has the terminal, on a real one: this program runs one of its tests again on a pseudoterminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
use std::{
    env,
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, Stdio},
};

use nix::pty::{OpenptyResult, openpty};
use rustix::termios::{LocalModes, tcgetattr};

use super::*;

/// Set in the process that has the terminal; how it ends.
const ENDS: &str = "HEAPSCOPE_TEST_OF_TERMINAL";
/// What a terminal is told to show its other screen, and to show the first again (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const MESSAGE: &str = "the view has met something that cannot be";

/// What a process did to its terminal.
struct Shown {
    text: String,
    succeeded: bool,
}

/// Runs the test with this name in a process of its own, which has a new terminal for everything.
fn on_a_terminal(test: &str, ends: &str) -> Shown {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let before = tcgetattr(&slave).unwrap();
    let end = || Stdio::from(OwnedFd::from(File::from(slave.try_clone().unwrap())));
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1", test])
        .env(ENDS, ends)
        .env("TERM", "xterm-256color")
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    // It is read while the child writes: a terminal holds but little.
    let reader = std::thread::spawn(move || {
        let (mut text, mut part) = (Vec::new(), [0_u8; 4096]);
        let mut master = File::from(master);
        // EIO where the last one has closed the other end.
        while let Ok(length) = master.read(&mut part) {
            text.extend(&part[..length]);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let succeeded = child.wait().unwrap().success();
    let after = tcgetattr(&slave).unwrap();
    drop(slave);
    let text = reader.join().unwrap();
    // Nobody types without seeing it, and lines end as they did.
    assert!(after.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON), "{text}");
    let modes =
        |of: &rustix::termios::Termios| (of.local_modes, of.input_modes, of.output_modes, of.control_modes);
    assert_eq!(modes(&after), modes(&before), "{text}");
    Shown { text, succeeded }
}

/// Whether the terminal shows its first screen, with the cursor, when the message comes, and does so to the end.
fn assert_given_back(text: &str) {
    let entered = text.find(ENTER).unwrap_or_else(|| panic!("it was not taken over: {text:?}"));
    let message = text.find(MESSAGE).unwrap_or_else(|| panic!("no message: {text:?}"));
    let left = text.find(LEAVE).unwrap_or_else(|| panic!("it was not given back: {text:?}"));
    assert!(entered < left && left < message, "{text:?}");
    assert!(!text[left..].contains(ENTER), "{text:?}");
    assert!(text[left..].contains("\x1b[?25h") && !text[left..].contains("\x1b[?25l"), "{text:?}");
}

/// In the process that has the terminal: takes it over, and what a key would do to it is told.
fn panic_on_the_screen() {
    let _screen = Screen::take_over().unwrap();
    let modes = tcgetattr(io::stdin()).unwrap().local_modes;
    assert!(!modes.intersects(LocalModes::ECHO | LocalModes::ICANON), "it was not taken over");
    panic!("{MESSAGE}");
}

#[test]
fn a_panic_gives_the_terminal_back_before_its_message() {
    const NAME: &str = "tui::terminal::tests::a_panic_gives_the_terminal_back_before_its_message";
    if env::var_os(ENDS).is_some() {
        panic_on_the_screen();
    }
    let shown = on_a_terminal(NAME, "panic");
    assert!(!shown.succeeded, "{}", shown.text);
    assert_given_back(&shown.text);
}

/// As a panic in another thread, or one that somebody catches: the screen is dropped later than the message comes.
#[test]
fn a_panic_that_is_caught_gives_it_back_too() {
    const NAME: &str = "tui::terminal::tests::a_panic_that_is_caught_gives_it_back_too";
    if env::var_os(ENDS).is_some() {
        assert!(catch_unwind(AssertUnwindSafe(panic_on_the_screen)).is_err());
        return;
    }
    let shown = on_a_terminal(NAME, "caught");
    assert!(shown.succeeded, "{}", shown.text);
    assert_given_back(&shown.text);
}
