//! `heapscope top` in a terminal: what it shows, what keys do, and how it leaves the terminal.

use std::{fs, path::Path};

use rustix::process::Signal;

use crate::{
    script::Script,
    support::{
        case::{Case, case_with},
        heapscope::{Heapscope, heapscope},
        needs::Need,
        program::send,
        report::Report,
        until,
    },
    terminal::Terminal,
};

const NEEDS: &[Need] = &[Need::Program("tmux")];

pub(crate) const CASES: &[Case] = &[
    case_with("top::what_keys_do", NEEDS, what_keys_do),
    case_with("top::a_report_and_a_mark", NEEDS, a_report_and_a_mark),
    case_with("top::without_a_sample_nothing_is_not_certain", NEEDS, without_a_sample),
    case_with("top::the_terminal_is_restored_after_signals", NEEDS, restored_after_signals),
    case_with("top::the_targets_end_is_told", NEEDS, the_targets_end_is_told),
];

/// Of a view, the first line of the list.
const FIRST: usize = 5;

/// Whether the stack of the selected site, which stands below the list, leads through this function.
fn leads_through(screen: &[String], function: &str) -> bool {
    screen[15..22].iter().any(|line| line.starts_with(&format!("  {function} (calls.c:")))
}

fn top(pid: u32, options: &str) -> Terminal {
    let command = format!("{} top {pid} {options}", env!("CARGO_BIN_EXE_heapscope"));
    let terminal = Terminal::start(&command, 80, 24);
    terminal.shows("no allocation was ");
    terminal
}

/// Ten small blocks on one path, a large one on another.
fn allocate(script: &mut Script) {
    for slot in 1..=10 {
        assert_eq!(script.program.ask(&format!("red malloc {slot} 1024")), "block");
    }
    assert_eq!(script.program.ask("green malloc 11 102400"), "block");
}

fn what_keys_do() {
    let mut script = Script::start();
    let terminal = top(script.pid(), "");
    allocate(&mut script);
    let screen = terminal.shows("live 110.0 KiB in 11 blocks, +110.0 KiB in ");
    assert!(
        screen[0].starts_with(&format!("heapscope {}", screen[0].split(' ').nth(1).unwrap())),
        "{screen:#?}"
    );
    assert!(
        screen[0].contains(&format!("(pid {})", script.pid())) && screen[0].contains("exact, "),
        "{screen:#?}"
    );
    assert!(screen[22].starts_with("lost 0 | overhead "), "{screen:#?}");
    let first_is = |path: &'static str| {
        move |screen: &[String]| leads_through(screen, path) && screen[22].contains("1 of 2")
    };
    terminal.until("the large block first", first_is("green"));
    terminal.keys(&["b"]);
    let screen = terminal.until("the most blocks first", first_is("red"));
    assert!(screen[FIRST].contains("10.0 KiB") && screen[FIRST + 1].contains("100.0 KiB"), "{screen:#?}");
    // Names are looked up for a filter; `main` is in both stacks.
    terminal.text("/RED");
    terminal.keys(&["Enter"]);
    let screen = terminal.shows("1 of 1 | filter `RED`");
    assert!(screen[FIRST].contains("10.0 KiB") && leads_through(&screen, "red"), "{screen:#?}");
    terminal.keys(&["Enter"]);
    terminal.resize(120, 40);
    terminal.shows("live blocks by thread");
    let screen = terminal.shows("calls.c:");
    let has = |text: &str| assert!(screen.iter().any(|line| line.contains(text)), "{text}: {screen:#?}");
    has("live       10.0 KiB in 10 blocks, 9.1% of all that lives");
    has(" 10 of           10 allocated ██");
    has("stack: ");
    has("allocated by glibc");
    terminal.resize(50, 8);
    terminal.shows("50 x 8 is too small");
    terminal.resize(80, 24);
    terminal.keys(&["Escape"]);
    terminal.shows("1 of 1 | filter `RED`");
    terminal.keys(&["Escape"]);
    terminal.shows("1 of 2");
    terminal.keys(&["?"]);
    terminal.shows("sort by the age of the oldest live block");
    terminal.keys(&["?", "Space"]);
    terminal.shows("HELD");
    assert_eq!(script.program.ask("blue malloc 12 1048576"), "block");
    terminal.keys(&["Space"]);
    terminal.shows("live 1.1 MiB in 12 blocks");
    assert!(terminal.has_colours());
    terminal.keys(&["q"]);
    terminal.is_restored(0);
}

fn a_report_and_a_mark() {
    let mut script = Script::start();
    let terminal = top(script.pid(), "--sample 1 --probes multi");
    allocate(&mut script);
    terminal.shows("live 110.0 KiB ± ");
    terminal.keys(&["m"]);
    terminal.shows("marked 1, after ");
    assert_eq!(script.program.ask("blue malloc 12 1048576"), "block");
    let screen = terminal.shows("since mark");
    assert!(screen[0].contains("sampled once in 1 B, multi"), "{screen:#?}");
    terminal.until("the growth since the mark", |screen| screen[FIRST].contains("+1.0 MiB"));
    terminal.keys(&["w", "C-u"]);
    terminal.text("look.json");
    terminal.keys(&["Enter"]);
    terminal.shows("wrote look.json");
    let path = terminal.folder.path().join("look.json");
    let report: Report = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((report.totals.inuse_objects, report.totals.inuse_space), (12, 110 * 1024 + (1 << 20)));
    // What is there is replaced only by one who says so.
    fs::write(&path, "mine").unwrap();
    for (key, kept) in [("n", true), ("y", false)] {
        terminal.keys(&["w", "C-u"]);
        terminal.text("look.json");
        terminal.keys(&["Enter"]);
        terminal.shows("look.json exists. Replace it?");
        terminal.keys(&[key]);
        terminal.shows(if kept { "was left as it is" } else { "wrote look.json" });
        assert_eq!(fs::read(&path).unwrap() == b"mine", kept);
    }
    terminal.keys(&["w", "C-u"]);
    terminal.text("look.nonsense");
    terminal.keys(&["Enter"]);
    terminal.shows("nothing written: ");
    terminal.keys(&["C-c"]);
    let screen = terminal.is_restored(0);
    assert!(screen.iter().any(|line| line == "wrote look.json"), "{screen:#?}");
}

/// The chance that one of these blocks is sampled is one in ten thousand.
fn without_a_sample() {
    let mut script = Script::start();
    let terminal = top(script.pid(), "--sample 1GiB");
    // Nothing was allocated, which is known.
    terminal.shows("live 0 B ± 0 B in 0 blocks ± 0, ");
    allocate(&mut script);
    // Two of these bounds are all that was not sampled: were they blocks of a byte, as many blocks.
    let screen = terminal.shows("live 0 B ± 55.0 KiB in 0 blocks ± 56,320, ");
    assert!(screen[FIRST].starts_with("no allocation was sampled yet"), "{screen:#?}");
    terminal.keys(&["q"]);
    terminal.is_restored(0);
}

fn restored_after_signals() {
    let mut script = Script::start();
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP] {
        let terminal = Terminal::start(
            &format!("env NO_COLOR=1 {} top {}", env!("CARGO_BIN_EXE_heapscope"), script.pid()),
            80,
            24,
        );
        terminal.shows("? help");
        assert!(!terminal.has_colours(), "in spite of NO_COLOR");
        send(terminal.pid(), signal);
        terminal.is_restored(0);
    }
    // Its window is closed.
    let terminal = top(script.pid(), "");
    let pid = terminal.pid();
    drop(terminal);
    until("it ends with its terminal", || !Path::new(&format!("/proc/{pid}")).exists());
    // Nor is it asked for where there is none.
    let outcome = Heapscope::start(&mut heapscope(&["top", &script.pid().to_string()])).finish();
    assert_eq!(outcome.status, 1);
    assert!(
        outcome.errors.contains("needs a terminal") && outcome.errors.contains("--interval"),
        "{}",
        outcome.errors
    );
    allocate(&mut script);
}

fn the_targets_end_is_told() {
    let mut script = Script::start();
    let terminal = top(script.pid(), "");
    allocate(&mut script);
    terminal.shows("live 110.0 KiB in 11 blocks");
    terminal.until("names", |screen| leads_through(screen, "green"));
    send(script.pid(), Signal::KILL);
    let screen = terminal.shows(&format!("process {} has ended", script.pid()));
    assert!(screen[1].starts_with("live 110.0 KiB in 11 blocks"), "{screen:#?}");
    assert!(screen[FIRST].contains("100.0 KiB") && leads_through(&screen, "green"), "{screen:#?}");
    terminal.keys(&["w", "Enter"]);
    terminal.shows(".svg");
    let written = terminal.shows("wrote heapscope-");
    assert!(written[23].contains(&format!("{}.svg", script.pid())), "{written:#?}");
    terminal.keys(&["q"]);
    let screen = terminal.is_restored(0);
    assert!(screen.iter().any(|line| line.ends_with("has ended")), "{screen:#?}");
}
