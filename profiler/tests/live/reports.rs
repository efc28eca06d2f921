//! The same look in every form, and where each form goes.

use std::fs;

use rustix::process::Signal;

use crate::{
    script::Script,
    support::{
        case::{Case, case, methods},
        heapscope::{Heapscope, heapscope},
        program::send,
        report::Report,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("reports::all_forms_tell_the_same", all_forms_tell_the_same),
    case("reports::standard_output_belongs_to_the_report", standard_output_belongs_to_the_report),
    case("reports::without_output_a_flamegraph", without_output_a_flamegraph),
    case("reports::tables_again_and_again", tables_again_and_again),
    case("reports::every_way_to_stop", every_way_to_stop),
];

/// Three sites, the largest last.
fn orders(script: &mut Script) {
    script.watched();
    script.orders(&[
        "red malloc 1 1000",
        "green malloc 2 30000",
        "blue malloc 3 400000",
        "blue malloc 4 400000",
    ]);
    script.free(4);
}

fn all_forms_tell_the_same() {
    let mut script = Script::start();
    let options = ["-o", "report.svg", "-o", "report.folded"];
    let heapscope = Heapscope::attach(script.pid(), &options);
    orders(&mut script);
    let (svg, folded) = (heapscope.file("report.svg"), heapscope.file("report.folded"));
    send(heapscope.pid(), Signal::INT);
    let (outcome, [svg, folded]) = heapscope.finish_with([svg, folded]);
    let report = outcome.report.unwrap();
    script.assert_account(&report);
    assert!(methods().any(|method| method == report.mode.probes), "{}", report.mode.probes);

    let live: Vec<u64> = report.sites.iter().map(|site| site.totals.inuse_space).collect();
    assert_eq!(live, [400_000, 30_000, 1000], "most live bytes first");

    let expected: Vec<String> = report
        .sites
        .iter()
        .map(|site| {
            let mut functions = site.functions();
            functions.reverse();
            format!("{} {}", functions.join(";"), site.totals.inuse_space)
        })
        .collect();
    let lines: Vec<&str> = folded.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 3, "{folded}");
    expected.iter().for_each(|line| assert!(lines.contains(&line.as_str()), "{line}\n{folded}"));

    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"), "{svg}");
    for title in
        ["all (431,000 bytes in 3 blocks", "blue (400,000 bytes in 1 block", "red (1,000 bytes in 1 block"]
    {
        assert!(svg.contains(title), "{title}");
    }

    // The table: largest first, then what was written.
    let table = outcome.output;
    let at = |text: &str| table.find(text).unwrap_or_else(|| panic!("no `{text}` in {table}"));
    let order =
        ["live in 3 blocks", "390.6 KiB", "blue (calls.c", "29.3 KiB", "red (calls.c", "wrote report.json"]
            .map(at);
    assert!(order.is_sorted(), "{table}");
    assert!(table.contains("wrote report.svg\nwrote report.folded\n"), "{table}");
    assert!(!table.contains("warning"), "{table}");
}

fn standard_output_belongs_to_the_report() {
    let mut script = Script::start();
    let pid = script.pid().to_string();
    let arguments = ["attach", &pid, "--exact", "-o", "-", "--format", "json"];
    let mut heapscope = Heapscope::start(&mut heapscope(&arguments));
    heapscope.hear("attached");
    orders(&mut script);
    send(heapscope.pid(), Signal::INT);
    let outcome = heapscope.finish();
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let report: Report = serde_json::from_str(&outcome.output).unwrap();
    script.assert_account(&report);
    // The table is for people, and they look at the other stream.
    assert!(outcome.errors.contains("live in 3 blocks"), "{}", outcome.errors);
}

fn without_output_a_flamegraph() {
    let mut script = Script::start();
    let mut heapscope = Heapscope::start(&mut heapscope(&["attach", &script.pid().to_string(), "--exact"]));
    heapscope.hear("attached");
    orders(&mut script);
    let comm = fs::read_to_string(format!("/proc/{}/comm", script.pid())).unwrap();
    let name = format!("heapscope-{}-{}.svg", comm.trim_end(), script.pid());
    send(heapscope.pid(), Signal::INT);
    let file = heapscope.file(&name);
    let (outcome, [svg]) = heapscope.finish_with([file]);
    assert!(outcome.output.ends_with(&format!("wrote {name}\n")), "{}", outcome.output);
    assert!(svg.contains("<title>blue (400,000 bytes"), "{svg}");
}

fn tables_again_and_again() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &["--interval", "200ms", "--top", "1"]);
    orders(&mut script);
    // Two with everything in them, and the last one comes at the end.
    for _ in 0..2 {
        while !heapscope.hear_output().contains("live in 3 blocks") {}
        while !heapscope.hear_output().contains("blue (calls.c") {}
    }
    send(heapscope.pid(), Signal::INT);
    let outcome = heapscope.finish();
    assert!(outcome.output.contains("wrote report.json"), "{}", outcome.output);
    assert!(!outcome.output.contains("red (calls.c"), "--top 1 is one site: {}", outcome.output);
    // The file has them all.
    script.assert_account(&outcome.report.unwrap());
}

fn every_way_to_stop() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut script = Script::start();
        let heapscope = Heapscope::attach(script.pid(), &[]);
        orders(&mut script);
        send(heapscope.pid(), signal);
        script.assert_account(&heapscope.report());
    }
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &["-d", "1500ms"]);
    orders(&mut script);
    let report = heapscope.report();
    script.assert_account(&report);
    assert!((1.5..20.0).contains(&report.duration_seconds), "{}", report.duration_seconds);
    // A target that stands still is no reason to wait.
    let script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    send(script.pid(), Signal::STOP);
    send(heapscope.pid(), Signal::INT);
    heapscope.report().assert_nothing_lost();
    send(script.pid(), Signal::CONT);
}
