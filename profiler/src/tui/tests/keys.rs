//! What keys do to the state.

use std::path::PathBuf;

use super::*;
use crate::tui::model::Marked;

#[test]
fn keys_sort() {
    let mut state = fed();
    let order_after = |state: &mut State, keys: &str| {
        press(state, keys);
        listed(state)
    };
    assert_eq!(listed(&state), [2, 3, 1, 4]);
    assert_eq!(order_after(&mut state, "g"), [2, 1, 4, 3]);
    assert_eq!(order_after(&mut state, "r"), [1, 4, 3, 2]);
    assert_eq!(order_after(&mut state, "a"), [2, 3, 1, 4]);
    assert_eq!(order_after(&mut state, "b"), [2, 3, 1, 4]);
    assert_eq!(order_after(&mut state, "b"), [4, 1, 3, 2]);
    assert!(screen(&mut state, 80, 24)[4].contains("blocks▲"));
    assert_eq!(order_after(&mut state, "l"), [2, 3, 1, 4]);
}

#[test]
fn the_selection_stays_with_its_site() {
    let mut state = fed();
    press(&mut state, "↓");
    assert_eq!(state.selected().unwrap().site, 3);
    press(&mut state, "r");
    assert_eq!((state.cursor(), state.selected().unwrap().site), (2, 3));
    let mut next = update();
    next.sites[2].live.space = 9 << 20;
    press(&mut state, "l");
    state.update(next);
    assert_eq!((state.cursor(), state.selected().unwrap().site), (0, 3));
    // It has gone: the first line is selected again.
    let mut next = update();
    next.sites.remove(2);
    state.update(next);
    assert_eq!(state.selected().unwrap().site, 2);
}

#[test]
fn the_selected_line_is_always_in_sight() {
    let mut state = state();
    let sites = (0..500).map(|key| site(key, 1000 - key, 0, 1.0, None, 1)).collect();
    state.resize(Rect::new(0, 0, 80, 24));
    state.update(Update { sites, ..update() });
    let rows = state.rows();
    for (code, line) in [
        (KeyCode::End, 499),
        (KeyCode::PageUp, 499 - (rows - 1)),
        (KeyCode::Home, 0),
        (KeyCode::Up, 0),
        (KeyCode::PageDown, rows - 1),
        (KeyCode::Down, rows),
    ] {
        hit(&mut state, code);
        assert_eq!(state.cursor(), line, "{code:?}");
        assert!((state.top..state.top + rows).contains(&line), "{code:?}: from {}", state.top);
    }
    // Names are asked for of what is in sight, and of nothing else.
    assert_eq!(state.unnamed().len(), rows);
    state.resize(Rect::new(0, 0, 80, 12));
    assert!((state.top..state.top + state.rows()).contains(&rows));
}

#[test]
fn a_filter_asks_for_all_names_and_keeps_what_matches() {
    let mut state = fed();
    press(&mut state, "/SESS.*new\n");
    assert_eq!(state.unnamed(), [5], "what is not listed is looked at too");
    assert_eq!(listed(&state), [2]);
    let shown = screen(&mut state, 100, 24);
    assert!(shown[22].contains("1 of 1 | filter `SESS.*new`, 1 not named yet"), "{shown:#?}");
    // Of what is no regular expression, the letters count.
    press(&mut state, "/\u{1b}/");
    let control_u = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
    state.key(control_u);
    press(&mut state, "thumbnail.c:1\n");
    assert_eq!(listed(&state), [3]);
    press(&mut state, "/");
    state.key(control_u);
    press(&mut state, "parse (\n");
    assert_eq!(listed(&state), [1]);
    assert!(screen(&mut state, 80, 24)[23].contains("no regular expression"));
    press(&mut state, "/x\n");
    assert!(screen(&mut state, 80, 24)[5].starts_with("naming the sites"));
    state.name(5, named(&["free"]));
    assert!(screen(&mut state, 80, 24)[5].starts_with("no site has a frame that matches `parse (x`"));
    press(&mut state, "\u{1b}");
    assert_eq!(listed(&state).len(), 4);
}

#[test]
fn a_held_display_stands_still() {
    let mut state = fed();
    press(&mut state, " ");
    let before = screen(&mut state, 80, 24);
    assert!(before[22].starts_with("HELD  lost 0"), "{before:#?}");
    state.update(Update { lost: 7, ..Update::default() });
    assert_eq!(screen(&mut state, 80, 24)[3..], before[3..]);
    press(&mut state, " ");
    assert!(screen(&mut state, 80, 24)[22].starts_with("lost 7"));
}

#[test]
fn a_report_is_asked_for_and_never_overwrites_unasked() {
    let mut state = fed();
    press(&mut state, "w");
    assert!(screen(&mut state, 80, 24)[23].starts_with("write to: heapscope-server-4242.svg"));
    let path = PathBuf::from("heapscope-server-4242.svg");
    let write = |overwrite| Some(Action::Write { path: path.clone(), overwrite });
    assert_eq!(press(&mut state, "\n"), write(false));
    state.ask_to_overwrite(path.clone());
    assert!(screen(&mut state, 80, 24)[23].contains("exists. Replace it? y / n"));
    assert_eq!(press(&mut state, "n"), None);
    assert!(screen(&mut state, 80, 24)[23].contains("was left as it is"));
    state.ask_to_overwrite(path.clone());
    assert_eq!(press(&mut state, "y"), write(true));
    // What is typed is shown with its blanks, from the end where it is long.
    press(&mut state, "w");
    press(&mut state, &format!("{}end ", "x".repeat(200)));
    assert!(screen(&mut state, 80, 24)[23].ends_with("xxend"));
    press(&mut state, "\u{1b}");
    assert_eq!(press(&mut state, "w\u{1b}q"), Some(Action::Quit), "q in a name is a letter");
}

#[test]
fn growth_since_a_mark() {
    let mut state = fed();
    press(&mut state, "\t");
    assert!(screen(&mut state, 80, 24)[23].contains("no mark yet"));
    assert_eq!(press(&mut state, "m"), Some(Action::Mark));
    state.marked();
    let growth = Growth { over: Duration::from_secs(3), live: 5 << 10, rss: Some(0) };
    let mut next = update();
    next.marked = Some(Marked { name: "1".into(), growth });
    next.sites.iter_mut().for_each(|site| site.marked = Some(-2048));
    state.update(next);
    let shown = screen(&mut state, 80, 24);
    assert!(shown[1].contains("+5.0 KiB in 3 s") && shown[2].contains("0 B in 3 s"), "{shown:#?}");
    assert!(shown[4].contains("since mark") && shown[5].contains("-2.0 KiB"), "{shown:#?}");
    press(&mut state, "\t");
    assert!(screen(&mut state, 80, 24)[5].contains("+300.0 KiB"));
}
