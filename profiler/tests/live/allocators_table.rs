//! The table in docs/allocators.md, made of what the other tests of allocators found in this very run. With
//! `HEAPSCOPE_BLESS=1` it is written, else compared.

use std::{fs, path::Path, process::Command};

use crate::{
    allocators::{COLUMNS, Row, VARIANTS, Variant},
    allocators_rust::{CRATES, NEEDS, fixture},
    support::{
        case::{Case, case},
        needs::Need,
    },
};

pub(crate) const CASES: &[Case] = &[case("allocators::table_in_the_docs", table_in_the_docs)];

const BEGIN: &str =
    "<!-- The table is written by `HEAPSCOPE_BLESS=1 cargo test -p heapscope --test live -- table`. -->\n";
const END: &str = "<!-- End of the table. -->\n";

/// A line of the table: how it begins, and the whole of it.
struct Line {
    key: String,
    text: String,
}

fn table_in_the_docs() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/allocators.md");
    let page = fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has no place for the table");
    let (documented, after) = rest.split_once(END).unwrap();
    let lacking = |needs: &[Need]| needs.iter().any(|need| need.lacking().is_some());
    let mut lines = Vec::new();
    let mut absent = 0;
    for variant in &VARIANTS {
        if lacking(variant.needs) {
            absent += 1;
        } else {
            lines.push(line(variant.name, &version(variant), variant.linked, variant.row()));
        }
    }
    for of in &CRATES {
        if lacking(NEEDS) {
            absent += 1;
        } else {
            let linked = format!("Rust crate {}", of.package);
            lines.push(line(of.name, &locked_version(of.package), &linked, &of.row()));
        }
    }
    if std::env::var_os("HEAPSCOPE_BLESS").is_some() {
        assert_eq!(absent, 0, "the table cannot be written: allocators are absent");
        let head = format!("| allocator | version | linked | {} |\n", COLUMNS.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(COLUMNS.len() + 3));
        let table: String = lines.into_iter().map(|line| line.text).collect();
        fs::write(&file, [before, BEGIN, &head, &rule, &table, END, after].concat()).unwrap();
        return;
    }
    for Line { key, text } in lines {
        // What is installed elsewhere is another version, which must do the same.
        let cells = |line: &str| line.splitn(5, '|').nth(4).map(str::to_owned);
        let wanted = documented.lines().find(|line| line.starts_with(&key) && linked(line) == linked(&text));
        let wanted = wanted.unwrap_or_else(|| panic!("docs/allocators.md lacks the line {text}"));
        assert_eq!(cells(wanted), cells(text.trim_end()), "docs/allocators.md is out of date for {key}");
    }
}

fn line(name: &str, version: &str, linked: &str, row: &Row) -> Line {
    let cells: Vec<&str> = COLUMNS.iter().map(|column| row.get(column).map_or("", String::as_str)).collect();
    let key = format!("| {name} |");
    Line { text: format!("{key} {version} | {linked} | {} |\n", cells.join(" | ")), key }
}

/// The third cell.
fn linked(line: &str) -> Option<&str> {
    line.split('|').nth(3)
}

/// The first two numbers of the package's version.
fn version(variant: &Variant) -> String {
    let Some(package) = variant.package else { return String::new() };
    let asked = Command::new("dpkg-query").args(["-W", "-f=${source:Upstream-Version}", package]).output();
    let asked = asked.ok().filter(|output| output.status.success());
    family(&asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default())
}

/// The same from the fixture's lock file.
fn locked_version(package: &str) -> String {
    let lock = fs::read_to_string(fixture().join("Cargo.lock")).unwrap();
    let (_, entry) = lock.split_once(&format!("name = \"{package}\"\nversion = \"")).unwrap();
    family(entry.split('"').next().unwrap())
}

fn family(version: &str) -> String {
    version.split(['.', '+', '-']).take(2).collect::<Vec<_>>().join(".")
}
