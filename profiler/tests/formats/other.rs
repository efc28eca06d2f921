//! heaptrack_print, valgrind's DHAT viewer, Python's csv, and speedscope's own schema.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use heapscope::report::format::Format;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    observed::observed,
    support::{
        case::{Case, case_with},
        needs::Need,
        readers,
    },
};

pub(crate) const CASES: &[Case] = &[
    case_with("heaptrack::totals", &[Need::Program("heaptrack_print")], heaptrack),
    case_with("dhat::totals_in_valgrinds_viewer", &[Need::Program("node"), Need::DhatViewer], dhat),
    case_with("csv::totals_in_python", &[Need::Program("python3")], csv),
    case_with("speedscope::schema_and_totals", &[Need::Program("node"), Need::Readers], speedscope),
    case_with(
        "speedscope::totals_on_its_page",
        &[Need::Program("chromium"), Need::Program("base64"), Need::Readers],
        speedscope_page,
    ),
];

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The sum over all stacks of one of heaptrack's costs.
fn heaptrack_sum(file: &Path, cost: &str) -> u64 {
    let folder = TempDir::new().unwrap();
    let stacks = folder.path().join("stacks");
    let mut print = Command::new("heaptrack_print");
    print.args(["--disable-builtin-suppressions", "--flamegraph-cost-type", cost, "-f"]).arg(file);
    text(print.arg("-F").arg(&stacks).output().unwrap());
    let stacks = fs::read_to_string(stacks).unwrap();
    stacks.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

fn heaptrack() {
    for observed in observed() {
        let file = observed.file(Format::Heaptrack);
        let (totals, report) = (observed.totals(), &observed.report);
        assert_eq!(heaptrack_sum(&file, "allocations"), totals.alloc_objects);
        assert_eq!(heaptrack_sum(&file, "leaked"), totals.inuse_space);
        let temporary: u64 = report.sites.iter().map(|site| site.temporary_objects).sum();
        assert_eq!(heaptrack_sum(&file, "temporary"), temporary);
        let printed = text(Command::new("heaptrack_print").arg("-f").arg(&file).output().unwrap());
        assert!(
            printed.contains(&format!("calls to allocation functions: {} ", totals.alloc_objects)),
            "{printed}"
        );
        assert!(printed.contains("red\n"), "{printed}");
        assert!(!printed.contains("failed to parse") && !printed.contains("out of bounds"), "{printed}");
        assert_eq!(heaptrack_sum(&file, "peak"), report.peak.as_ref().unwrap().held.inuse_space);
        let debuggee = printed.lines().find(|line| line.contains(&report.target.command)).unwrap();
        assert_eq!(
            debuggee.contains("estimates from samples"),
            observed.sample_interval.is_some(),
            "{debuggee}"
        );
    }
}

/// The viewer's own code builds its tree of the file and draws it; only the page under it is a stand-in that keeps text.
const DHAT_PAGE: &str = r#"
const fs = require("fs"), vm = require("vm");
class Element {
  constructor(name) { this.name = name; this.childNodes = []; this.texts = []; this.classList = {add() {}, toggle() {}}; }
  appendChild(child) { this.childNodes.push(child); child.parentNode = this; return child; }
  replaceChild(fresh, old) { this.childNodes = this.childNodes.map(child => child === old ? fresh : child); }
  cloneNode() { return new Element(this.name); }
  setAttribute() {}
  set textContent(text) { this.texts = [text]; }
  get all() { return this.texts.join("") + this.childNodes.map(child => child.all).join(""); }
}
const [viewer, file] = process.argv.slice(1);
const document = {
  title: "",
  body: new Element("body"),
  createElement: name => new Element(name),
  createTextNode: text => { const node = new Element("text"); node.texts = [text]; return node; },
};
const code = fs.readFileSync(viewer, "utf8") + `
  gSelect = new Element("select");
  gSelect.selectedIndex = 0;
  for (const data of gSelectData) {
    const option = new Element("option");
    option.selected = false;
    gSelect.appendChild(option);
  }
  gData = JSON.parse(content);
  buildTree();
  gMainDiv = document.body;
  appendInvocationAndTimes(gMainDiv);
  sigTree(gRoot, aT => true);
  appendTreeInner(gRoot, gMainDiv, gSelectData[0].bolds, () => 0, () => 100, () => true, [1], 0, [], "", "");
  result = JSON.stringify({
    totals: [gRoot._totalBytes, gRoot._totalBlocks, gRoot._atTGmaxBytes, gRoot._atTGmaxBlocks, gRoot._atTEndBytes,
             gRoot._atTEndBlocks],
    text: document.body.all,
  });`;
const context = {document, Element, content: fs.readFileSync(file, "utf8"), window: {location: {search: ""}}, result: "", Intl};
vm.runInNewContext(code, context);
console.log(context.result);
"#;

fn dhat() {
    for observed in observed() {
        let mut node = Command::new("node");
        node.args(["-e", DHAT_PAGE, readers::DHAT_VIEWER]).arg(observed.file(Format::Dhat));
        let shown: Value = serde_json::from_str(&text(node.output().unwrap())).unwrap();
        let (totals, peak) = (observed.totals(), observed.report.peak.as_ref().unwrap().held);
        let expected = [
            totals.alloc_space,
            totals.alloc_objects,
            peak.inuse_space,
            peak.inuse_objects,
            totals.inuse_space,
            totals.inuse_objects,
        ];
        assert_eq!(shown["totals"], serde_json::json!(expected));
        let page = shown["text"].as_str().unwrap();
        for part in [&observed.report.target.command, "red (calls.c:", "At t-gmax", "At t-end"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert_eq!(page.contains("estimates from samples"), observed.sample_interval.is_some(), "{page}");
    }
}

const READ_CSV: &str = r#"
import csv, json, sys
rows = list(csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8"), strict=True))
columns = ["inuse_space_bytes", "inuse_objects", "alloc_space_bytes", "alloc_objects"]
print(json.dumps({"sums": [sum(int(row[column]) for row in rows) for column in columns], "rows": rows}))
"#;

fn csv() {
    for observed in observed() {
        let mut python = Command::new("python3");
        python.args(["-c", READ_CSV]).arg(observed.file(Format::Csv));
        let read: Value = serde_json::from_str(&text(python.output().unwrap())).unwrap();
        let totals = observed.totals();
        let expected = [totals.inuse_space, totals.inuse_objects, totals.alloc_space, totals.alloc_objects];
        assert_eq!(read["sums"], serde_json::json!(expected));
        let rows = read["rows"].as_array().unwrap();
        assert_eq!(rows.len(), observed.report.sites.len());
        let is_sampled = observed.sample_interval.is_some();
        for row in rows {
            assert_eq!(row["numbers"], if is_sampled { "estimate" } else { "exact" });
            assert_eq!(row["inuse_space_standard_error"] != "", is_sampled, "{row}");
            assert!(
                row["stack"].as_str().unwrap().starts_with(['_', 'c']),
                "from the first function on: {row}"
            );
        }
    }
}

/// speedscope's package has the schema of its format, and ajv reads schemas. The schema says nothing of what a number is
/// an index of, so the sums follow the indices.
const READ_SPEEDSCOPE: &str = r#"
const Ajv = require("ajv"), fs = require("fs");
const [schema, file] = process.argv.slice(1).map(name => JSON.parse(fs.readFileSync(name, "utf8")));
const ajv = new Ajv({strict: false});
if (!ajv.validate(schema, file)) throw new Error(JSON.stringify(ajv.errors));
const sums = file.profiles.map(profile => {
  if (profile.samples.length !== profile.weights.length) throw new Error("a weight for each sample");
  for (const stack of profile.samples)
    for (const index of stack)
      if (file.shared.frames[index] === undefined) throw new Error("no such frame");
  const sum = profile.weights.reduce((a, b) => a + b, 0);
  if (sum !== profile.endValue) throw new Error("weights and end");
  return sum;
});
console.log(JSON.stringify({sums, names: file.profiles.map(profile => profile.name),
  roots: file.profiles[0].samples.map(stack => file.shared.frames[stack[0]].name)}));
"#;

fn speedscope() {
    for observed in observed() {
        let schema = readers::folder().join("node_modules/speedscope/dist/release/file-format-schema.json");
        let mut node = Command::new("node");
        node.args(["-e", READ_SPEEDSCOPE]).arg(schema).arg(observed.file(Format::Speedscope));
        let read = text(node.current_dir(readers::folder()).output().unwrap());
        let read: Value = serde_json::from_str(&read).unwrap();
        let totals = observed.totals();
        let expected = [totals.inuse_space, totals.inuse_objects, totals.alloc_space, totals.alloc_objects];
        assert_eq!(read["sums"], serde_json::json!(expected));
        for name in read["names"].as_array().unwrap() {
            let told = name.as_str().unwrap().contains("estimates from samples");
            assert_eq!(told, observed.sample_interval.is_some(), "{name}");
        }
        let roots = read["roots"].as_array().unwrap();
        assert!(
            roots.iter().all(|root| root == "_start" || root == "clone3" || root == "__clone3"),
            "{roots:?}"
        );
    }
}

/// speedscope itself, in a browser without a window: its list of profiles has their sums, bytes with two decimals.
fn speedscope_page() {
    let [observed, _] = observed();
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("profile.js");
    let file = observed.file(Format::Speedscope);
    let encoded = text(Command::new("base64").arg("-w0").arg(file).output().unwrap());
    fs::write(&script, format!("speedscope.loadFileFromBase64('observed.speedscope.json', '{encoded}')"))
        .unwrap();
    let page = readers::folder().join("node_modules/speedscope/dist/release/index.html");
    let mut chromium = Command::new("chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"])
        .args(["--allow-file-access-from-files", "--virtual-time-budget=8000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.path().join("chromium").display()))
        .arg(format!("file://{}#view=sandwich&localProfilePath={}", page.display(), script.display()));
    let page = text(chromium.output().unwrap());
    let totals = observed.totals();
    let megabytes = |bytes: u64| format!("{:.2} MB", bytes as f64 / f64::from(1 << 20));
    for (name, sum) in [
        ("inuse_space", megabytes(totals.inuse_space)),
        ("inuse_objects", totals.inuse_objects.to_string()),
        ("alloc_space", megabytes(totals.alloc_space)),
        ("alloc_objects", totals.alloc_objects.to_string()),
    ] {
        let row = page.split("<tr title=\"").find(|row| row.starts_with(name));
        let row = row.unwrap_or_else(|| panic!("no {name}: {page}")).split("</tr>").next().unwrap();
        assert!(row.contains(&format!(">{sum}</td>")), "{name} {sum}: {row}");
    }
    assert!(page.contains("red</"), "its functions: {page}");
}
