//! The state and what is drawn of it, on screens of several sizes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod keys;

use std::{sync::Arc, time::Duration};

use profiler_common::records::Held;
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::Rect,
    style::Color,
};

use super::{
    model::{Detail, Growth, Named, SiteNumbers, Target, Update},
    state::{Action, State},
    theme::Theme,
    view,
};
use crate::{
    report::{
        history::{SiteHistory, SizeClass},
        quality::{Remark, Weight},
    },
    symbolize::frame::{Frame, FrameKind, FrameRole},
};

const MINUTE: Duration = Duration::from_secs(60);

fn state() -> State {
    let target = Target {
        name: "server".into(),
        pid: 4242,
        command: "/usr/bin/server --port 8080".into(),
        probes: "session".into(),
        sample_interval: None,
        told: false,
        allocators: vec!["glibc".into()],
    };
    State::new(target, Theme::new(true), false)
}

/// A site of so many KiB, which grew by so many of them, allocates so often, and is so old.
fn site(site: u64, kib: u64, grew: i64, rate: f64, age: Option<u64>, blocks: u64) -> SiteNumbers {
    SiteNumbers {
        site,
        live: Held { objects: blocks, space: kib << 10 },
        allocated: Held { objects: 2 * blocks, space: kib << 11 },
        temporary_objects: blocks / 2,
        lately: grew << 10,
        allocations_per_second: rate,
        oldest: age.map(Duration::from_secs),
        ..SiteNumbers::default()
    }
}

fn update() -> Update {
    let sites = vec![
        site(1, 12, 1, 900.0, Some(5), 3),
        site(2, 2048, 300, 0.5, Some(59), 4096),
        site(3, 100, -40, 12.0, Some(40), 50),
        site(4, 0, 0, 20.0, None, 0),
        site(5, 0, 0, 0.0, None, 0),
    ];
    Update {
        after: MINUTE,
        live: Held { objects: 4149, space: 2160 << 10 },
        allocated: Held { objects: 9000, space: 9 << 20 },
        rss: Some(32 << 20),
        lately: Growth { over: Duration::from_secs(58), live: 261 << 10, rss: Some(1 << 20) },
        allocations_per_second: 932.5,
        frees_per_second: 900.0,
        overhead_percent: Some(1.25),
        sites,
        ..Update::default()
    }
}

fn frame(function: &str, role: FrameRole) -> Arc<Frame> {
    Arc::new(Frame {
        function: Some(function.into()),
        file: Some(format!("/src/{function}.c")),
        line: Some(12),
        module: Some("/usr/bin/server".into()),
        address: 1,
        module_offset: None,
        kind: FrameKind::Native,
        inlined: false,
        guessed: false,
        role,
    })
}

fn named(functions: &[&str]) -> Named {
    let malloc = frame("malloc", FrameRole::Allocator);
    let others = functions.iter().map(|function| frame(function, FrameRole::Program));
    Named { allocator: "glibc".into(), stack: std::iter::once(malloc).chain(others).collect() }
}

/// A state with numbers and names.
fn fed() -> State {
    let mut state = state();
    state.resize(Rect::new(0, 0, 80, 24));
    state.update(update());
    for site in state.unnamed() {
        let functions = ["", "parse", "session_new", "thumbnail", "search"];
        let function = functions.get(usize::try_from(site).unwrap()).unwrap();
        state.name(site, named(&[function, "handle", "main"]));
    }
    state.arrange();
    state
}

/// What is on a screen of this size, line by line without the blanks at their ends.
fn screen(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    state.resize(Rect::new(0, 0, width, height));
    terminal.draw(|frame| view::draw(state, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn press(state: &mut State, keys: &str) -> Option<Action> {
    keys.chars().fold(None, |_, c| match c {
        '\n' => hit(state, KeyCode::Enter),
        '\u{1b}' => hit(state, KeyCode::Esc),
        '\t' => hit(state, KeyCode::Tab),
        '↓' => hit(state, KeyCode::Down),
        c => hit(state, KeyCode::Char(c)),
    })
}

fn hit(state: &mut State, code: KeyCode) -> Option<Action> {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// The sites in the order in which they are listed.
fn listed(state: &State) -> Vec<u64> {
    state.order.iter().map(|index| state.shown.sites[*index].site).collect()
}

#[test]
fn the_whole_screen_at_80_by_24() {
    let shown = screen(&mut fed(), 80, 24);
    assert_eq!(
        shown[..10],
        [
            "heapscope server (pid 4242)  /usr/bin/server --port 8080    60 s, exact, session",
            "live 2.1 MiB in 4,149 blocks, +261.0 KiB in 58 s                               █",
            "rss  32.0 MiB, live is 6.6% of it, +1.0 MiB in 58 s                            █",
            "rate 933/s allocs, 900/s frees; 9.0 MiB allocated; 5 sites; glibc",
            "     live▼     growth    allocs     oldest    blocks site: function ← its caller",
            "   2.0 MiB +300.0 KiB     0.5/s       59 s     4,096 session_new (sessi…ew.c:12)",
            " 100.0 KiB  -40.0 KiB      12/s       40 s        50 thumbnail (thumbnail.c:12)…",
            "  12.0 KiB   +1.0 KiB     900/s        5 s         3 parse (parse.c:12) ← handl…",
            "       0 B        0 B      20/s          -         0 search (search.c:12) ← han…",
            "",
        ]
    );
    let preview: Vec<&str> = shown[15..].iter().map(String::as_str).collect();
    assert_eq!(
        preview,
        [
            "── the stack of the selected site: 4 frames, glibc; Enter shows all ────────────",
            "  session_new (session_new.c:12)",
            "  handle (handle.c:12)",
            "  main (main.c:12)",
            "",
            "",
            "",
            "lost 0 | overhead 1.2% | 1 of 4",
            "? help  Enter site  lgrab sort  / filter  Space hold  m mark  w write  q quit",
        ]
    );
}

#[test]
fn a_wide_screen_shows_more_of_the_stack() {
    let shown = screen(&mut fed(), 120, 40);
    assert!(shown[5].ends_with("session_new (session_new.c:12) ← handle ← main"), "{shown:#?}");
    assert_eq!((shown.len(), shown[38].as_str()), (40, "lost 0 | overhead 1.2% | 1 of 4"));
}

#[test]
fn every_size_is_drawn_without_a_fault() {
    for page in ["", "\n", "?", "!", "/", "w"] {
        let mut state = fed();
        press(&mut state, page);
        for (width, height) in [(0, 0), (1, 1), (20, 5), (59, 24), (80, 9), (60, 10), (61, 17), (500, 200)] {
            let shown = screen(&mut state, width, height);
            let is_small = width < 60 || height < 10;
            if is_small && width >= 20 {
                assert!(shown.join(" ").contains("too small"), "{width} x {height}: {shown:#?}");
            } else if !is_small {
                assert!(shown[0].starts_with("heapscope server (pid 4242)"), "{width} x {height}");
                assert!(shown[usize::from(height) - 2].starts_with("lost 0 | overhead 1.2%"), "{shown:#?}");
            }
        }
    }
}

#[test]
fn a_site_in_full() {
    let mut state = fed();
    assert_eq!(state.wants_detail(), None);
    press(&mut state, "\n");
    assert_eq!(state.wants_detail(), Some(2));
    let waiting = screen(&mut state, 80, 40);
    assert!(waiting.iter().any(|line| line.starts_with("sizes and threads: reading")), "{waiting:#?}");
    let class = SizeClass { smallest: 513, largest: Some(1024), alloc_objects: 8192, inuse_objects: 4096 };
    let held = Held { objects: 4096, space: 2 << 20 };
    state.detail(Detail {
        site: 2,
        after: MINUTE,
        history: SiteHistory {
            sizes: vec![class],
            threads: vec![("wor\u{1b}ker".into(), held)],
            ..SiteHistory::default()
        },
    });
    let shown = screen(&mut state, 80, 40);
    let has = |text: &str| assert!(shown.iter().any(|line| line.contains(text)), "{text}: {shown:#?}");
    has("live       2.0 MiB in 4,096 blocks, 94.8% of all that lives");
    has("growth     +300.0 KiB in the last 58 s");
    has("allocated  4.0 MiB in 8,192 blocks since attach, 0.5/s now, 25.0% temporary");
    has("513 B to 1.0 KiB        4,096 of        8,192 allocated ███");
    has("wor?ker      2.0 MiB in 4,096 blocks");
    has("stack: 4 frames, allocated by glibc");
    has("  0  malloc  /src/malloc.c:12");
    has("  1  session_new  /src/session_new.c:12");
    // On a small screen it scrolls, no further than its end.
    let before = screen(&mut state, 80, 12);
    hit(&mut state, KeyCode::End);
    let after = screen(&mut state, 80, 12);
    assert!(before != after && after.iter().any(|line| line.contains("  3  main  ")), "{after:#?}");
    hit(&mut state, KeyCode::Down);
    assert_eq!(screen(&mut state, 80, 12), after);
    press(&mut state, "\u{1b}");
    assert_eq!(state.wants_detail(), None);
}

#[test]
fn losses_and_warnings_are_never_hidden() {
    let mut state = fed();
    let remark = |weight, text: &str| Remark { weight, text: text.into() };
    state.update(Update {
        lost: 1234,
        overhead_percent: None,
        remarks: vec![
            remark(Weight::Warning, "1,234 allocations not recorded: the table of live blocks was full."),
            remark(Weight::Note, "3 frees of older blocks."),
        ],
        ..update()
    });
    for page in ["", "\n", "?", "!"] {
        press(&mut state, page);
        let shown = screen(&mut state, 80, 24);
        let status = "lost 1,234 | overhead not measured yet | 1 warning: see !";
        assert!(shown[22].starts_with(status), "{page}: {shown:#?}");
    }
    let shown = screen(&mut state, 60, 24);
    assert_eq!(shown[5], "  warning: 1,234 allocations not recorded: the table of live");
    assert_eq!(shown[6], "           blocks was full.");
    assert_eq!(shown[7], "  note: 3 frees of older blocks.");
}

#[test]
fn the_last_state_stays_when_the_process_ends() {
    let mut state = fed();
    press(&mut state, " ");
    state.update(Update { lost: 1, ..update() });
    state.end("process 4242 has ended");
    let shown = screen(&mut state, 80, 24);
    assert!(shown[22].starts_with("process 4242 has ended  lost 1 |"), "{shown:#?}");
    assert!(shown[5].contains("session_new"));
    assert_eq!(press(&mut state, "m"), None);
    assert!(matches!(press(&mut state, "w\n"), Some(Action::Write { .. })));
    assert_eq!(press(&mut state, "q"), Some(Action::Quit));
}

#[test]
fn estimates_have_their_errors() {
    let mut state = fed();
    state.target.sample_interval = Some(512 << 10);
    let mut next = update();
    next.live_error = Some(Held { objects: 40, space: 100 << 10 });
    next.sites[1].error = Some(Held { objects: 10, space: 82 << 10 });
    state.update(next);
    let shown = screen(&mut state, 100, 24);
    assert!(shown[0].ends_with("sampled once in 512.0 KiB, session"), "{shown:#?}");
    assert!(shown[1].starts_with("live 2.1 MiB ± 100.0 KiB in 4,149 blocks ± 40"), "{shown:#?}");
    assert!(shown[5].starts_with("   2.0 MiB  ±4.0%"), "{shown:#?}");
}

#[test]
fn no_colours_where_none_are_wanted() {
    let colors = |has_colors| {
        let mut state = fed();
        state.theme = Theme::new(has_colors);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| view::draw(&state, frame)).unwrap();
        let cells = terminal.backend().buffer().content().iter();
        cells.filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert_eq!(colors(false), 0);
    assert!(colors(true) > 50);
}

#[test]
fn hostile_names_stay_within_their_line() {
    let mut state = fed();
    state.target.command = "a\u{1b}[2J\nb".into();
    state.name(2, named(&["x\u{1b}]0;title\u{7}\u{202e}y"]));
    let shown = screen(&mut state, 120, 24).join("\n");
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}') && shown.contains("x?]0;title??y"));
}
