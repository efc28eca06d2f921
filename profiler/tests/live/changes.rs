//! Libraries that come, go and change under a running program, and files that are laid out in unusual ways.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    script::Script,
    support::{
        case::{Case, case, case_with},
        fixture,
        heapscope::{Heapscope, heapscope},
        needs::Need,
        program::{Program, send},
        report::{Report, Site, Totals},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("changes::another_library_at_the_same_address", another_library_at_the_same_address),
    case("changes::other_frames_at_the_same_address", other_frames_at_the_same_address),
    case("changes::libraries_in_quick_succession", libraries_in_quick_succession),
    case("changes::a_library_in_the_place_of_another_unseen", a_library_in_the_place_of_another_unseen),
    case("changes::libraries_used_as_soon_as_loaded", libraries_used_as_soon_as_loaded),
    case("changes::a_library_replaced_on_disk_and_loaded_again", replaced_and_loaded_again),
    case("changes::a_library_written_into_and_loaded_again", written_into_and_loaded_again),
    case_with("changes::a_library_in_a_pid_namespace", &[Need::Namespaces], a_library_in_a_pid_namespace),
    case("changes::programs_linked_in_odd_ways", programs_linked_in_odd_ways),
    case("changes::libraries_linked_in_odd_ways", libraries_linked_in_odd_ways),
    case("changes::constructors_of_preloaded_libraries", constructors_of_preloaded_libraries),
];

/// A plugin whose inner function has this name and this much room in its frame.
fn plugin(inside: &str, room: u32, more: &[&str]) -> PathBuf {
    let (inside, room) = (format!("-Dplugin_inside={inside}"), format!("-DROOM={room}"));
    fixture::build("plugin.c", &[&["-shared", "-fPIC", &inside, &room], more].concat())
}

/// The lowest address at which a process has mapped this file.
fn address_of(pid: u32, path: &Path) -> Option<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.ends_with(path.to_str().unwrap()))?;
    line.split('-').next().map(str::to_owned)
}

fn once(size: u64) -> Totals {
    Totals { inuse_space: size, inuse_objects: 1, alloc_space: size, alloc_objects: 1 }
}

fn another_library_at_the_same_address() {
    // The same size, the same addresses, other names.
    one_after_the_other(plugin("first_inside", 1, &[]), plugin("other_inside", 1, &[]));
}

fn other_frames_at_the_same_address() {
    // The same instructions at the same addresses, but that they make more room: the rules of one would lead astray in the other.
    one_after_the_other(plugin("first_inside", 800, &[]), plugin("other_inside", 1600, &[]));
}

fn one_after_the_other(first: PathBuf, second: PathBuf) {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.load_plugin(&first);
    script.is_known_to(&heapscope);
    let place = address_of(script.pid(), &first).unwrap();
    script.orders(&["red plugin 1 1000"]);
    script.control("dlclose", "done");
    script.load_plugin(&second);
    assert_eq!(address_of(script.pid(), &second).unwrap(), place);
    script.is_known_to(&heapscope);
    script.orders(&["red plugin 2 3000"]);
    // And the first one again, in its old place: its site is the one that it had.
    script.control("dlclose", "done");
    script.load_plugin(&first);
    assert_eq!(address_of(script.pid(), &first).unwrap(), place);
    script.is_known_to(&heapscope);
    script.orders(&["red plugin 3 1000"]);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    let mut twice = once(1000);
    twice.allocated(1000);
    assert_eq!(report.below("first_inside"), twice);
    assert_eq!(report.below("other_inside"), once(3000));
    assert_eq!(report.sites.iter().filter(|site| site.has("first_inside")).count(), 1);
}

/// A site that says no more than is true: the plugin's own function under its own name, and whoever called it; or a stack
/// that is marked as incomplete.
fn assert_honest(site: &Site, inside: &str) {
    let functions = site.functions();
    let named = functions.starts_with(&[inside, "plugin_allocate"]);
    if site.is_whole() {
        assert!(named && site.has("red") && site.has("main"), "{functions:?}");
    } else {
        let root = functions.last().unwrap();
        assert!(root.starts_with("[stack incomplete"), "{functions:?} {site:?}");
    }
}

fn libraries_in_quick_succession() {
    // The second one's frames are larger: the rows of the first would lead astray.
    let (first, second) = (plugin("first_inside", 1, &[]), plugin("wide_inside", 800, &[]));
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    let mut places = Vec::new();
    for round in 0..20 {
        for (library, size) in [(&first, 1000), (&second, 5000)] {
            script.load_plugin(library);
            places.push(address_of(script.pid(), library).unwrap());
            // At once, and again when its tables may be there.
            script.orders(&[&format!("red plugin {} {size}", 10 * round + size)]);
            script.program.ask("mallinfo");
            script.orders(&[&format!("red plugin {} {size}", 10 * round + size + 1)]);
            script.control("dlclose", "done");
        }
    }
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 1, "the libraries did not take one another's place");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let total = |size| report.sum(|site| site.totals.alloc_space == size * site.totals.alloc_objects);
    assert_eq!(total(1000).alloc_objects + total(5000).alloc_objects, 80, "a site has blocks of both");
    for site in &report.sites {
        match site.totals.alloc_space / site.totals.alloc_objects {
            1000 => assert_honest(site, "first_inside"),
            5000 => assert_honest(site, "wide_inside"),
            _ => {}
        }
    }
}

fn a_library_in_the_place_of_another_unseen() {
    let (first, second) = (plugin("first_inside", 1, &[]), plugin("wide_inside", 800, &[]));
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.load_plugin(&first);
    let place = address_of(script.pid(), &first);
    script.is_known_to(&heapscope);
    // While heapscope stands still, the walk takes the rows of the first one for those of the second.
    send(heapscope.pid(), Signal::STOP);
    script.control("dlclose", "done");
    script.load_plugin(&second);
    assert_eq!(address_of(script.pid(), &second), place);
    script.orders(&["red plugin 1 5000"]);
    send(heapscope.pid(), Signal::CONT);
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let site = report.sites.iter().find(|site| site.totals == once(5000)).unwrap();
    let functions = site.functions();
    assert_eq!(functions[0], "wide_inside", "{functions:?}");
    assert!(functions[1..].iter().all(|name| name.starts_with("[stack incomplete")), "{functions:?}");
    // The walk has ended early by itself, or was cut afterwards.
    let cut = |warning: &String| warning.contains("in the place of other code");
    assert!(report.incomplete() == 1 || report.quality.warnings.iter().any(cut), "{:?}", report.quality);
}

/// Prints for how long a library stayed unknown after `dlopen` (docs/limits.md has the figure), and asserts none.
fn libraries_used_as_soon_as_loaded() {
    const LIBRARIES: u64 = 20;
    const CALLS: u64 = 500;
    let (library, folder) = (plugin("first_inside", 1, &[]), TempDir::new().unwrap());
    let path = |index: u64| folder.path().join(format!("{index}.so"));
    for index in 0..LIBRARIES {
        fs::copy(&library, path(index)).unwrap();
    }
    let mut command = Command::new(fixture::build("loader.c", &[]));
    let numbers = [LIBRARIES, CALLS, 50].map(|number| number.to_string());
    let mut program = Program::start_until(command.arg(folder.path()).args(numbers), "ready");
    let heapscope = Heapscope::attach(program.pid(), &[]);
    let answer = program.ask("go");
    let interval: f64 = answer.strip_prefix("done ").unwrap().parse().unwrap();
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let mut unknown: Vec<u64> = Vec::new();
    for index in 0..LIBRARIES {
        let module = path(index).display().to_string();
        let its_own = |site: &&Site| site.stack[0].module.as_ref() == Some(&module);
        let sites: Vec<&Site> = report.sites.iter().filter(its_own).collect();
        assert_eq!(sites.iter().map(|site| site.totals.alloc_objects).sum::<u64>(), CALLS, "{sites:#?}");
        let cut = sites.iter().filter(|site| !site.is_whole());
        assert!(
            cut.clone().all(|site| site.ended_early() && site.functions()[0] == "first_inside"),
            "{sites:#?}"
        );
        unknown.push(cut.map(|site| site.totals.alloc_objects).sum());
    }
    unknown.sort_unstable();
    let milliseconds = |calls: u64| calls as f64 * interval / 1e6;
    let (median, most) = (unknown[unknown.len() / 2], unknown[unknown.len() - 1]);
    println!(
        "unknown after dlopen: {:.1} ms in the middle, {:.1} ms at most, {} of {} calls ({LIBRARIES} libraries, a call each {:.2} ms)",
        milliseconds(median),
        milliseconds(most),
        unknown.iter().sum::<u64>(),
        LIBRARIES * CALLS,
        interval / 1e6
    );
}

/// Loads a copy of one plugin, has `change` put another one in its place, loads that, and reports.
fn loaded_again(change: impl Fn(&Path, &Path)) -> Report {
    let (first, second) = (plugin("first_inside", 1, &[]), plugin("wide_inside", 800, &[]));
    let folder = TempDir::new().unwrap();
    let library = folder.path().join("plugin.so");
    fs::copy(&first, &library).unwrap();
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.load_plugin(&library);
    script.is_known_to(&heapscope);
    script.orders(&["red plugin 1 1000"]);
    script.control("dlclose", "done");
    change(&second, &library);
    script.load_plugin(&library);
    script.is_known_to(&heapscope);
    script.orders(&["red plugin 2 3000"]);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    assert_eq!(
        report.below("wide_inside").alloc_objects,
        report.sum(|site| site.has("wide_inside")).alloc_objects
    );
    report
}

fn replaced_and_loaded_again() {
    let report = loaded_again(|second, library| {
        let fresh = library.with_extension("new");
        fs::copy(second, &fresh).unwrap();
        fs::rename(&fresh, library).unwrap();
    });
    assert_eq!(report.below("first_inside"), once(1000));
    assert_eq!(report.below("wide_inside"), once(3000));
}

fn written_into_and_loaded_again() {
    let report = loaded_again(|second, library| fs::write(library, fs::read(second).unwrap()).unwrap());
    let site = report.sites.iter().find(|site| site.totals == once(3000)).unwrap();
    assert_eq!(site.functions()[..2], ["wide_inside", "plugin_allocate"]);
    // The first one's names are gone with its file, which is said.
    let warnings = &report.quality.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("written into this file")), "{warnings:?}");
}

fn a_library_in_a_pid_namespace() {
    let library = plugin("first_inside", 1, &[]);
    let calls = fixture::calls();
    let mut holder =
        Program::start_until(Command::new("unshare").args(["-mpf", "--mount-proc"]).arg(&calls), "ready");
    let children = format!("/proc/{0}/task/{0}/children", holder.pid());
    let pid: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let heapscope = Heapscope::attach(pid, &[]);
    assert_eq!(holder.ask(&format!("dlopen {}", library.display())), "done");
    heapscope.catch_up(|mark| assert_eq!(holder.ask(&format!("map {}", mark.display())), "mapped"));
    assert_eq!(holder.ask("red plugin 1 1000"), "block");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    assert_eq!(report.below("first_inside"), once(1000));
}

fn programs_linked_in_odd_ways() {
    for flags in [
        &["-static-pie", "-fPIE", "-Wl,-w"][..],
        &["-no-pie"],
        &["-no-pie", "-Wl,-Ttext-segment=0x12340000"],
        &["-Wl,-z,noseparate-code"],
        &["-Wl,-z,separate-code", "-Wl,-z,max-page-size=0x200000"],
        &["-no-pie", "-Wl,-z,noseparate-code", "-Wl,-z,max-page-size=0x200000"],
    ] {
        let program = fixture::build("calls.c", flags);
        let mut script = Script::of(&mut Command::new(program));
        let heapscope = Heapscope::attach(script.pid(), &[]);
        script.watched();
        script.orders(&["red malloc 1 100", "blue realloc 2 5000"]);
        let report = heapscope.stop();
        script.assert_account(&report);
        report.assert_stacks_whole();
        assert!(report.sites.iter().all(|site| site.has("main")), "{flags:?}");
    }
}

fn libraries_linked_in_odd_ways() {
    for flags in [
        &["-Wl,-Ttext-segment=0x7000000000"][..],
        &["-Wl,-z,noseparate-code"],
        &["-Wl,-z,max-page-size=0x200000"],
        &["-Wl,-z,separate-code", "-Wl,-Ttext-segment=0x400000"],
    ] {
        let library = plugin("first_inside", 40, flags);
        let mut script = Script::start();
        let heapscope = Heapscope::attach(script.pid(), &[]);
        script.watched();
        script.load_plugin(&library);
        script.is_known_to(&heapscope);
        script.orders(&["red plugin 1 1000"]);
        let report = heapscope.stop();
        script.assert_account(&report);
        report.assert_stacks_whole();
        assert_eq!(report.below("first_inside"), once(1000), "{flags:?}");
    }
}

fn constructors_of_preloaded_libraries() {
    let eager = fixture::build("eager.c", &["-shared", "-fPIC"]);
    for variable in ["LD_PRELOAD", "LD_AUDIT"] {
        let mut heapscope = Heapscope::start_with(
            heapscope(&["run", "-o", "report.json", "--", "env"])
                .arg(format!("{variable}={}", eager.display()))
                .arg(fixture::calls())
                .stdin(Stdio::piped()),
        );
        assert_eq!(heapscope.hear_output(), "ready");
        // An audit library makes system calls before the program's own libraries are mapped, so that these are taken
        // for ones that came later.
        heapscope.catch_up(|mark| {
            heapscope.write(&format!("map {}\n", mark.display()));
            assert_eq!(heapscope.hear_output(), "mapped");
        });
        heapscope.write("red malloc 1 100\n");
        assert_eq!(heapscope.hear_output(), "block");
        heapscope.close_input();
        let report = heapscope.report();
        report.assert_nothing_lost();
        // The loader's own first function has no name where its debug file is not installed; the walk ends in it.
        let quality = &report.quality;
        let stacks: Vec<_> = report.sites.iter().map(Site::functions).collect();
        assert_eq!(report.incomplete(), 0, "{variable}: {:?} {stacks:#?}", quality.incomplete_stacks);
        assert_eq!((quality.truncated_stacks, quality.guessed_frames), (0, 0), "{variable}: {stacks:#?}");
        assert_eq!(report.below("red"), once(100));
        let early = report.sites.iter().find(|site| site.has("eager_constructor")).unwrap();
        assert_eq!((early.totals.alloc_space, early.totals.alloc_objects), (10 * 1001, 10), "{variable}");
        assert_eq!(early.functions()[..2], ["eager_inside", "eager_constructor"]);
        let first = early.stack.last().unwrap().module.as_deref().unwrap_or_default();
        assert!(first.contains("/ld-linux"), "{first}");
    }
}
