//! Signals, stops and continuations reach the program as if nobody were there.

use crate::harness::{Seen, Talk, compile, follow, follow_to_end, send, start, status_field, until};

/// Follows through the shell that [`Talk`] puts before the program, until the program itself runs.
fn run_until_program(launch: &heapscope::sys::launch::Launch) {
    for _ in 0..2 {
        follow(launch, Some(&Seen::Running), |_| ());
    }
}

#[test]
fn handlers_run_real_time_signals_too() {
    const TEST: &str = "handlers_run_real_time_signals_too";
    let Some(program) = compile(TEST, "gcc", "signals.c", "signals", &[]) else { return };
    let mut talk = Talk::new();
    let Some(launch) = start(TEST, &talk.with(&[&program])) else { return };
    run_until_program(&launch);
    assert_eq!(talk.hear(), "ready");
    send(launch.pid(), libc::SIGUSR1);
    assert_eq!(talk.hear(), "user");
    send(launch.pid(), libc::SIGRTMIN() + 3);
    assert_eq!(talk.hear(), "real-time");
    assert_eq!(follow_to_end(&launch), [Seen::Ending, Seen::Exited(21)]);
}

#[test]
fn signals_during_loading_are_delivered() {
    const TEST: &str = "signals_during_loading_are_delivered";
    let Some(launch) = start(TEST, &["/bin/sh", "-c", "exit 0"]) else { return };
    let pid = launch.pid();
    let all = follow(&launch, None, |seen| {
        if *seen == Seen::Loading {
            send(pid, libc::SIGTERM);
        }
    });
    assert_eq!(all.last(), Some(&Seen::Killed(libc::SIGTERM)));
    assert!(!all.contains(&Seen::Running));
}

#[test]
fn a_stop_lasts_until_it_is_continued() {
    const TEST: &str = "a_stop_lasts_until_it_is_continued";
    // Not SIGTSTP: in an orphaned process group, such as a test run's without a terminal, it does not stop anyone.
    let signal = libc::SIGSTOP;
    let mut talk = Talk::new();
    let Some(launch) = start(TEST, &talk.with(&["cat"])) else { return };
    run_until_program(&launch);
    talk.say("one");
    assert_eq!(talk.hear(), "one");
    send(launch.pid(), signal);
    // "t": stopped and traced. Were the stop undone by the tracer, the line would come back.
    until("it stops", || status_field(launch.pid(), "State").starts_with('t'));
    talk.say("two");
    assert!(talk.is_silent(), "it runs in spite of the stop");
    send(launch.pid(), libc::SIGCONT);
    assert_eq!(talk.hear(), "two");
    send(launch.pid(), signal);
    until("it stops again", || status_field(launch.pid(), "State").starts_with('t'));
    send(launch.pid(), libc::SIGKILL);
    assert_eq!(follow_to_end(&launch).last(), Some(&Seen::Killed(libc::SIGKILL)));
}

#[test]
fn letting_go_of_a_stopped_program_leaves_it_stopped() {
    const TEST: &str = "letting_go_of_a_stopped_program_leaves_it_stopped";
    let mut talk = Talk::new();
    let Some(launch) = start(TEST, &talk.with(&["cat"])) else { return };
    run_until_program(&launch);
    send(launch.pid(), libc::SIGSTOP);
    until("it stops", || status_field(launch.pid(), "State").starts_with('t'));
    launch.detach();
    until("it is not traced", || status_field(launch.pid(), "State").starts_with('T'));
    talk.say("one");
    assert!(talk.is_silent());
    send(launch.pid(), libc::SIGCONT);
    assert_eq!(talk.hear(), "one");
    send(launch.pid(), libc::SIGTERM);
    assert_eq!(follow_to_end(&launch), [Seen::Killed(libc::SIGTERM)]);
}

#[test]
fn letting_go_interrupts_nothing() {
    const TEST: &str = "letting_go_interrupts_nothing";
    let Some(program) = compile(TEST, "gcc", "waiting.c", "waiting", &[]) else { return };
    let mut talk = Talk::new();
    let Some(launch) = start(TEST, &talk.with(&[&program])) else { return };
    run_until_program(&launch);
    assert_eq!(talk.hear(), "ready");
    let in_epoll_wait = || {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", launch.pid())).unwrap();
        call.starts_with(&format!("{} ", libc::SYS_epoll_wait))
    };
    until("it waits", in_epoll_wait);
    launch.detach();
    until("it is not traced", || status_field(launch.pid(), "TracerPid") == "0");
    talk.say("go on");
    assert_eq!(follow_to_end(&launch), [Seen::Exited(30)]);
}

#[test]
fn letting_go_while_it_is_held_works_when_it_is_resumed() {
    const TEST: &str = "letting_go_while_it_is_held_works_when_it_is_resumed";
    let Some(launch) = start(TEST, &["/bin/sh", "-c", "exec sh -c 'exit 8'"]) else { return };
    let (seen, stopped) = crate::harness::next(&launch).unwrap();
    assert!(matches!(seen, Seen::Exec(_)));
    launch.detach();
    drop(stopped);
    assert_eq!(follow_to_end(&launch), [Seen::Exited(8)]);
}
