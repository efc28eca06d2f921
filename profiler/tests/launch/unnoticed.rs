//! What the program finds around it is what it would find without us, and it outlives us.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use crate::harness::{Seen, Talk, command, compile, follow, follow_to_end, next, start, status_field, until};

#[test]
fn children_made_in_every_way_are_untouched() {
    const TEST: &str = "children_made_in_every_way_are_untouched";
    let Some(program) = compile(TEST, "gcc", "children.c", "children", &[]) else { return };
    let Some(launch) = start(TEST, &[&program]) else { return };
    assert_eq!(follow_to_end(&launch).last(), Some(&Seen::Exited(11)));
}

#[test]
fn streams_signals_group_and_descriptors_are_the_plain_ones() {
    const TEST: &str = "streams_signals_group_and_descriptors_are_the_plain_ones";
    let script =
        "grep -E '^Sig(Blk|Ign)' /proc/self/status; ps -o pgid= -p $$; readlink /proc/$$/fd/*; echo end";
    let listen = |talk: &mut Talk| {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| line != "end") {
            lines.push(talk.hear());
        }
        lines
    };
    let mut talk = Talk::new();
    let words = talk.with(&["bash", "-c", script]);
    let Some(launch) = start(TEST, &words) else { return };
    follow_to_end(&launch);
    let launched = listen(&mut talk);
    // The standard library starts processes properly: what it gives is what the launcher should give.
    let status = Command::new(&words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success());
    let expected = listen(&mut talk);
    let ignored = |lines: &[String]| {
        let mask = lines.iter().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        // Only up to SIGSYS: the standard library's posix_spawn ignores two real-time signals that glibc keeps to itself.
        u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff
    };
    assert_eq!(ignored(&launched), ignored(&expected));
    assert_eq!(ignored(&launched) & 1 << (libc::SIGPIPE - 1), 0);
    let rest = |lines: &[String]| {
        let all = lines.iter().filter(|line| !line.starts_with("SigIgn"));
        all.cloned().collect::<Vec<_>>()
    };
    assert_eq!(rest(&launched), rest(&expected));
    assert!(launched.contains(&"SigBlk:\t0000000000000000".to_owned()), "{launched:?}");
}

#[test]
fn the_program_outlives_a_killed_profiler() {
    const TEST: &str = "the_program_outlives_a_killed_profiler";
    for held_at in ["Exec", "Loading", "Running", "nothing"] {
        let mut talk = Talk::new();
        let words = talk.with(&["sh", "-c", "echo $$; read line; echo alive; exit 0"]);
        let mut profiler = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "unnoticed::helper_holds_a_program", "--nocapture"])
            .env("HEAPSCOPE_HELD_AT", held_at)
            .envs(words.iter().enumerate().map(|(index, word)| (format!("HEAPSCOPE_WORD_{index}"), word)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(profiler.stdout.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.starts_with("held") || line.starts_with("skipped"));
        profiler.kill().unwrap();
        assert_eq!(profiler.wait().unwrap().signal(), Some(libc::SIGKILL));
        let line = line.expect("the profiler says what it does");
        let Some(pid) = line.strip_prefix("held ") else {
            println!("{}", line.replace("helper", TEST));
            return;
        };
        let pid: u32 = pid.parse().unwrap();
        assert_eq!(talk.hear(), pid.to_string(), "killed while held at {held_at}");
        assert_eq!(status_field(pid, "TracerPid"), "0");
        talk.say("go on");
        assert_eq!(talk.hear(), "alive");
        until("it ends", || {
            status_field(pid, "State").is_empty() || status_field(pid, "State").starts_with('Z')
        });
    }
}

#[test]
#[ignore = "the profiler that the_program_outlives_a_killed_profiler kills"]
fn helper_holds_a_program() {
    let Ok(held_at) = std::env::var("HEAPSCOPE_HELD_AT") else { return };
    let words: Vec<_> =
        (0..).map_while(|index| std::env::var_os(format!("HEAPSCOPE_WORD_{index}"))).collect();
    let Some(launch) = start("helper", &words) else { return };
    let mut first_program = true;
    while let Some((seen, stopped)) = next(&launch) {
        let name = format!("{seen:?}");
        if !first_program && name.starts_with(&held_at) {
            println!("held {}", launch.pid());
            // To be killed here, with the program held.
            std::thread::park();
        }
        first_program &= seen != Seen::Running;
        let runs_free = !first_program && held_at == "nothing" && seen == Seen::Running;
        drop(stopped);
        if runs_free {
            follow(&launch, Some(&Seen::Running), |_| ());
            println!("held {}", launch.pid());
        }
    }
}

#[test]
fn dropping_everything_lets_it_go() {
    const TEST: &str = "dropping_everything_lets_it_go";
    let mut talk = Talk::new();
    let Some(launch) = start(TEST, &talk.with(&command(&["sh", "-c", "read line; echo $line"]))) else {
        return;
    };
    let pid = launch.pid();
    drop(launch);
    until("it is not traced", || status_field(pid, "TracerPid") == "0");
    talk.say("free");
    assert_eq!(talk.hear(), "free");
}
