//! Views of a profile and differences of two: sums stay sums, errors go along, words are tracemalloc's.

use super::{formats::sampled, *};
use crate::report::{
    diff::{self, DiffFormat, Pair},
    metric::Metric,
    tracemalloc,
    view::{
        Sums,
        filter::{Filter, Glob, join_small},
        group::{self, By},
        moment::{self, When},
        place,
    },
};

fn focus(pattern: &str) -> Filter {
    Filter { focus: Some(regex::Regex::new(pattern).unwrap()), ..Filter::default() }
}

fn names(profile: &Profile) -> Vec<u64> {
    profile.sites.iter().map(|site| site.totals.inuse_space).collect()
}

#[test]
fn a_part_of_the_sites() {
    let part = focus("Cache.*grow|on_request").apply(shop());
    assert_eq!(names(&part), [9_437_184, 1_024_000]);
    assert_eq!(part.totals.inuse_space, 9_437_184 + 1_024_000);
    assert_eq!(part.totals.alloc_objects, 2 * 1152 + 2 * 1000);
    assert_eq!(part.history.peak.unwrap().held.space, 2 * part.totals.inuse_space);
    assert_eq!(part.history.generations[0].held.space, part.totals.inuse_space);
    assert!(part.quality.warnings.last().unwrap().starts_with("A part is shown (--focus"));
    let others = Filter { ignore: focus("Cache.*grow|on_request").focus, ..Filter::default() }.apply(shop());
    assert_eq!(others.totals.inuse_space + part.totals.inuse_space, shop().totals.inuse_space);
    assert_eq!(focus("/srv/plugins").apply(shop()).sites.len(), 1, "a file");
    assert_eq!(focus("libstripped.so").apply(shop()).sites.len(), 1, "a module");
    assert_eq!(Filter::default().apply(shop()).quality.warnings, shop().quality.warnings);
}

#[test]
fn patterns_of_files() {
    for (glob, file, finds) in [
        ("*.py", "/srv/plugins/shop/__init__.py", true),
        ("*/shop/*", "/srv/plugins/shop/__init__.py", true),
        ("shop", "/srv/shop", false),
        ("/a?c.[ch]", "/abc.h", true),
        ("/a?c.[!ch]", "/abc.h", false),
        ("/a[]x].c", "/a].c", true),
        ("/a[.c", "/a[.c", true),
        ("[a-c]*", "b/anything", true),
        (r"a\d", r"a\d", true),
        ("a.c", "abc", false),
    ] {
        assert_eq!(Glob::new(glob).unwrap().finds(file), finds, "{glob} {file}");
    }
    let python = Filter { include: vec![Glob::new("*.py").unwrap()], ..Filter::default() }.apply(shop());
    assert_eq!(names(&python), [1_024_000]);
    let others = Filter { exclude: vec![Glob::new("*.py").unwrap()], ..Filter::default() }.apply(shop());
    assert_eq!(others.sites.len(), shop().sites.len() - 1);
}

#[test]
fn small_sites_together() {
    let joined = join_small(shop(), Metric::InuseSpace, 5.0);
    assert_eq!(names(&joined)[..3], [9_437_184, 2_000_000, 1_024_000]);
    let rest = joined.sites.last().unwrap();
    assert_eq!(rest.stack[0].function.as_deref(), Some("[7 sites of less than 5% each]"));
    assert_eq!(Sums::of(&joined.sites).totals, shop().totals, "nothing is lost");
    assert_eq!(rest.history.over_time, [(1, 300_000 + 120_000 + 40_000 + 8_000 + 64)]);
    assert_eq!(rest.history.threads[0].1.objects, 3 + 12 + 5 + 1 + 4 + 7);
}

#[test]
fn other_moments() {
    let peak = moment::at(shop(), At::Peak).unwrap();
    assert_eq!((peak.mode.at, peak.totals.inuse_space), (At::Peak, 2 * shop().totals.inuse_space));
    assert_eq!(peak.totals.alloc_space, shop().totals.alloc_space);
    assert!(moment::at(peak, At::Exit).is_err(), "it does not know its other moments any more");
    let born = moment::between(shop(), "start", "after warm-up").unwrap();
    assert_eq!(born.totals.inuse_space, shop().totals.inuse_space);
    let born = moment::between(shop(), "after warm-up", "end").unwrap();
    assert_eq!((born.totals, born.sites.len()), (Totals::default(), 0));
    for (from, to) in [("end", "start"), ("start", "nowhere"), ("after warm-up", "after warm-up")] {
        assert!(moment::between(shop(), from, to).is_err(), "{from} {to}");
    }
    let when = |text: &str| text.parse::<When>().unwrap();
    assert_eq!(when("peak"), When::At(At::Peak));
    assert_eq!([when("1.5"), when("1500ms")], [1; 2].map(|_| When::After(Duration::from_millis(1500))));
    assert_eq!([when("warm"), when("mark:peak")], ["warm", "peak"].map(|name| When::Mark(name.into())));
    assert!("".parse::<When>().is_err());
}

/// Variances of sites add up; a sampled profile never loses its errors on the way.
#[test]
fn errors_go_along() {
    let part = focus("libjson|Cache").apply(sampled());
    let error = (943_718.0_f64.powi(2) + 200_000.0_f64.powi(2) + 102_400.0_f64.powi(2)).sqrt().ceil();
    assert_eq!(part.errors.unwrap().inuse_space as f64, error);
    let peak = moment::at(sampled(), At::Peak).unwrap();
    let of_peak = peak.errors.unwrap().inuse_space;
    assert!(of_peak > 0 && of_peak != sampled().errors.unwrap().inuse_space);
    assert!(peak.sites[0].errors.unwrap().inuse_space > 0);
    let statistics = tracemalloc::statistics(&sampled(), By::Line).unwrap();
    assert!(statistics.iter().all(|statistic| statistic.errors.is_some()));
    assert!(tracemalloc::statistics(&shop(), By::Line).unwrap().iter().all(|one| one.errors.is_none()));
}

#[test]
fn groups() {
    let functions = group::functions(&shop());
    let of = |name: &str| functions.iter().find(|group| group.name == name).unwrap();
    let main = of("main [shop]");
    assert_eq!(main.own.totals.inuse_space, 0);
    assert_eq!(main.with_callees.totals.inuse_space, 12_929_248 - 120_000 - 64);
    let own = functions.iter().map(|group| group.own.totals.inuse_space).sum::<u64>();
    assert_eq!(own, shop().totals.inuse_space);
    assert_eq!(group::threads(&shop()), [("worker-1".into(), 12_929_248, 6184)]);
    assert_eq!(group::sizes(&shop())[0].2, 6184);
}

#[test]
fn lines_as_tracemalloc_has_them() {
    let lines = |by| {
        let statistics = tracemalloc::statistics(&shop(), by).unwrap();
        statistics.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let by_line = lines(By::Line);
    assert_eq!(by_line[0], "/build/src/srv_shop.c:61: size=9216 KiB, count=1152, average=8192 B");
    assert!(
        by_line
            .contains(&"/srv/plugins/shop/__init__.py:56: size=1000 KiB, count=1000, average=1024 B".into())
    );
    assert!(
        lines(By::File)
            .contains(&"/srv/plugins/shop/__init__.py:0: size=1000 KiB, count=1000, average=1024 B".into())
    );
    let python = &shop().sites[2].stack;
    assert_eq!(place::traceback(python).len(), 1, "of a stack with Python frames, those alone");
    assert!(tracemalloc::statistics(&shop(), By::Thread).is_none());
}

fn grown() -> Profile {
    let mut grown = shop();
    grown.sites[0].totals.inuse_space += 1024;
    grown.sites[0].totals.inuse_objects += 1;
    grown.sites.remove(1);
    grown.totals = Sums::of(&grown.sites).totals;
    grown
}

fn pair<'a>(before: &'a Profile, after: &'a Profile) -> Pair<'a> {
    Pair { before, before_name: "a.hscope", after, after_name: "b.hscope" }
}

#[test]
fn differences() {
    let (before, after) = (shop(), grown());
    let told = tracemalloc::compare(&before, &after, By::Line).unwrap();
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told[..2],
        [
            "/build/src/usr_lib_libjson_so_2.c:100: size=0 B (-1953 KiB), count=0 (-4000)",
            "/build/src/srv_shop.c:61: size=9217 KiB (+1024 B), count=1153 (+1), average=8186 B",
        ]
    );
    let options = ReportOptions::default();
    let mut out = Vec::new();
    diff::print(&pair(&before, &after), By::Traceback, &options, &mut out).unwrap();
    hold_against_golden("shop.diff", &String::from_utf8(out).unwrap());
    for format in [DiffFormat::Svg, DiffFormat::Folded, DiffFormat::Json] {
        let mut out = Vec::new();
        diff::write(format, &pair(&before, &after), By::Line, &options, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        match format {
            DiffFormat::Svg => assert!(text.contains("delta") || text.contains("rgb(255,"), "{text}"),
            DiffFormat::Folded => {
                let mut sums = [0, 0];
                for line in text.lines().filter(|line| !line.starts_with('#')) {
                    for (sum, number) in sums.iter_mut().rev().zip(line.rsplit(' ')) {
                        *sum += number.parse::<u64>().unwrap();
                    }
                }
                assert_eq!(sums, [before.totals.inuse_space, after.totals.inuse_space]);
            }
            DiffFormat::Json => {
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                let differences = json["differences"].as_array().unwrap();
                let sum: i64 = differences.iter().map(|one| one["size_diff"].as_i64().unwrap()).sum();
                assert_eq!(sum, 1024 - 2_000_000);
            }
        }
    }
    let nothing = tracemalloc::compare(&before, &before, By::Line).unwrap();
    assert!(nothing.iter().all(|one| (one.size.1, one.count.1) == (0, 0)));
}

#[test]
fn a_source_with_its_memory() {
    let annotation = annotate::annotate(&shop(), "srv_shop.c").unwrap();
    assert_eq!(annotation.lines[&61].sums.totals.inuse_space, 9_437_184, "the innermost line of the file");
    assert_eq!(
        annotation.lines[&90].sums.totals.inuse_space,
        2_000_000 + 1_024_000 + 300_000 + 120_000 + 8_000
    );
    assert_eq!(annotation.lines[&61].growth, Some(9_437_184));
    let mut out = Vec::new();
    let source = (1..=61).map(|line| format!("\tline {line};\n")).collect::<String>();
    annotate::write(&shop(), &annotation, Some(&source), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\n   9.0 MiB       1,152      +9.0 MiB     61   line 61;\n"), "{text}");
    assert!(text.contains("     90  [the source has no such line]\n"), "{text}");
    assert!(annotate::annotate(&shop(), "shop.c").unwrap_err().contains("--by file"));
}

#[test]
fn every_metric_has_its_picture_and_table() {
    for metric in [Metric::InuseObjects, Metric::AllocSpace, Metric::AllocObjects, Metric::Temporary] {
        let options = ReportOptions { metric, invert: true, ..ReportOptions::default() };
        let folded = report(Format::Folded, &shop(), &options);
        let lines = folded.lines().filter(|line| !line.starts_with("# "));
        let sum: u64 = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(sum, metric.sum(&shop()), "{metric:?}");
        assert!(folded.contains(";serve;main;__libc_start_call_main;_start "), "from the leaf: {folded}");
        let svg = report(Format::Svg, &shop(), &options);
        assert!(svg.contains(&format!("heapscope: {} of", metric.words())), "{metric:?}");
        table(&shop(), &options);
    }
}
