//! What `heapscope doctor` says with and without rights, for people and for programs.

use serde_json::Value;

use crate::{
    refused,
    rights::{Copies, NOBODY, WITHOUT_BPF},
    support::{
        case::{Case, case, case_with},
        heapscope::{Heapscope, Outcome, heapscope},
        needs::Need,
        program::Program,
    },
};

const NEEDS: &[Need] = &[Need::Root, Need::Program("setpriv"), Need::Program("cc")];

pub(crate) const CASES: &[Case] = &[
    case("doctor::it_is_said_what_cannot_be_tried", whatever_the_rights),
    case("doctor::a_wrong_name", a_wrong_name),
    case_with("doctor::a_user_without_rights", NEEDS, a_user_without_rights),
    case_with("doctor::root_without_capabilities", NEEDS, root_without_capabilities),
];

fn parsed(outcome: &Outcome) -> Value {
    assert_eq!(outcome.errors, "");
    serde_json::from_str(&outcome.output).unwrap()
}

fn verdict<'a>(part: &'a Value, name: &str) -> &'a str {
    let mut checks = part["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {part:#}"));
    check["verdict"].as_str().unwrap()
}

/// Every `no` and every warning has a remedy, and the status says what the last line does.
fn assert_sound(said: &Value, status: i32) {
    assert_eq!(said["works"], status == 0, "{said:#}");
    let checks = [&said["machine"], &said["target"]].map(|part| part["checks"].as_array().cloned());
    for check in checks.into_iter().flatten().flatten() {
        let verdict = check["verdict"].as_str().unwrap();
        let is_bad = matches!(verdict, "no" | "warn");
        assert_eq!(check["remedy"].is_string(), is_bad, "{check:#}");
    }
}

fn whatever_the_rights() {
    let outcome = Heapscope::start(&mut heapscope(&["doctor", "--json"])).finish();
    let said = parsed(&outcome);
    assert_sound(&said, outcome.status);
    assert_eq!(said["version"], 1);
    assert!(said["target"].is_null() && said["machine"]["kernel"].is_string(), "{said:#}");
    let people = Heapscope::start(&mut heapscope(&["doctor"])).finish();
    assert_eq!(people.status, outcome.status, "{}", people.output);
    assert!(people.output.lines().all(|line| line.chars().count() <= 100), "{}", people.output);
    assert!(people.output.starts_with("This machine"), "{}", people.output);
}

fn a_wrong_name() {
    let text = refused(&["doctor", "no-such-program-anywhere"]);
    assert!(text.contains("no running process matches"), "{text}");
}

fn a_user_without_rights() {
    let copies = Copies::make();
    let ours = Program::start_until(&mut copies.less(&NOBODY, "calls"), "ready");
    let foreign = Program::start_until(&mut copies.less(&[], "calls"), "ready");
    let own =
        Heapscope::start(&mut copies.heapscope(&NOBODY, &["doctor", &ours.pid().to_string(), "--json"]));
    let outcome = own.finish();
    let said = parsed(&outcome);
    assert_eq!(outcome.status, 1);
    assert_sound(&said, 1);
    assert_eq!(verdict(&said["machine"], "rights"), "no");
    assert_eq!(verdict(&said["machine"], "session"), "no");
    assert!(said["machine"]["probes"].is_null(), "{said:#}");
    // It may look at its own process all the same.
    assert_eq!(said["target"]["allocators"][0]["name"], "glibc", "{said:#}");
    let other = copies.heapscope(&NOBODY, &["doctor", &foreign.pid().to_string()]).output().unwrap();
    let text = String::from_utf8_lossy(&other.stdout);
    assert!(
        text.contains("of user 0 may not be inspected by us") && text.contains("→ Run heapscope with sudo"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

fn root_without_capabilities() {
    let copies = Copies::make();
    let outcome = Heapscope::start(&mut copies.heapscope(&WITHOUT_BPF, &["doctor", "--json"])).finish();
    let said = parsed(&outcome);
    assert_eq!(outcome.status, 1, "{said:#}");
    assert_sound(&said, 1);
    assert_eq!(verdict(&said["machine"], "rights"), "no");
}
