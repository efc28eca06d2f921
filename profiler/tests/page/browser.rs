//! A real Chromium without a window, driven by its own protocol over a pipe: no port is opened, nothing is fetched.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::HANG;

/// What keeps it to itself, and its state out of the user's.
const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
                     --disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe";

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<Vec<u8>>,
    session: Value,
    number: u64,
    /// What the page said to the console as an error, and exceptions that nobody caught.
    complaints: Vec<String>,
    _state: TempDir,
}

impl Browser {
    /// Opens a page of this size, which prefers this colour scheme.
    pub(crate) fn open(file: &Path, [width, height]: [u32; 2], scheme: &str) -> Self {
        let state = TempDir::new().unwrap();
        // The protocol speaks over descriptors 3 and 4.
        let script = format!(
            "exec chromium {FLAGS} --user-data-dir={} about:blank 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1",
            state.path().display()
        );
        let mut shell = Command::new("sh");
        let mut child =
            shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            loop {
                let mut message = Vec::new();
                match said.read_until(0, &mut message) {
                    Ok(1..) if sender.send(message).is_ok() => {}
                    _ => break,
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            answers,
            session: Value::Null,
            number: 0,
            complaints: Vec::new(),
            _state: state,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attach = json!({"targetId": target, "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.prefer(scheme);
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", size);
        browser.call("Page.navigate", json!({"url": format!("file://{}", file.display())}));
        browser.until("document.getElementById('page')?.hidden === false");
        browser
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let number = self.number;
        let mut command = json!({"id": number, "method": method, "params": parameters});
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            // A hundred thousand sites on a machine that others use too take their time.
            let message =
                self.answers.recv_timeout(3 * HANG).unwrap_or_else(|_| panic!("no answer to {method}"));
            let message: Value = serde_json::from_slice(message.strip_suffix(b"\0").unwrap()).unwrap();
            if message["id"] == number {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        let is_complaint = match message["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => {
                matches!(parameters["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            "Log.entryAdded" => matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning")),
            _ => false,
        };
        if is_complaint {
            self.complaints.push(parameters.to_string());
        }
    }

    /// What an expression is in the page; a promise is waited for.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The words of the first element that this selects.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let value = self.value(&format!("document.querySelector({selector:?})?.innerText ?? '(none)'"));
        value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// How many elements this selects.
    pub(crate) fn count(&mut self, selector: &str) -> u64 {
        self.value(&format!("document.querySelectorAll({selector:?}).length")).as_u64().unwrap()
    }

    /// Waits until an expression is true, looking at every frame that is drawn.
    pub(crate) fn until(&mut self, condition: &str) {
        self.value(&format!(
            "new Promise(done => {{ const look = () => ({condition}) ? done(true) : setTimeout(look, 10); look(); }})"
        ));
    }

    /// Waits until what was chosen is shown.
    pub(crate) fn settle(&mut self) {
        self.value("new Promise(done => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(done), 30)))");
    }

    /// A key, as if it had been pressed.
    pub(crate) fn press(&mut self, key: &str) {
        let mut event = json!({"type": "keyDown", "key": key});
        if key.chars().count() == 1 {
            event["text"] = json!(key);
        }
        if key == "Enter" {
            event["text"] = json!("\r");
        }
        self.call("Input.dispatchKeyEvent", event);
        self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key}));
        self.settle();
    }

    /// Text, as if it had been typed.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
        self.settle();
    }

    fn mouse(&mut self, what: &str, [x, y]: [f64; 2], buttons: u32) {
        let event =
            json!({"type": what, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1});
        self.call("Input.dispatchMouseEvent", event);
    }

    /// A point of the first element that this expression is, by shares of its width and height.
    fn point(&mut self, element: &str, [right, down]: [f64; 2]) -> [f64; 2] {
        let place = self.value(&format!(
            "(() => {{ const e = {element}; e.scrollIntoView({{block: 'nearest'}}); const r = e.getBoundingClientRect(); \
             return [r.x + r.width * {right}, r.y + r.height * {down}]; }})()"
        ));
        [place[0].as_f64().unwrap(), place[1].as_f64().unwrap()]
    }

    /// Clicks on the middle of an element, given by an expression.
    pub(crate) fn click(&mut self, element: &str) {
        let point = self.point(element, [0.5, 0.5]);
        self.mouse("mouseMoved", point, 0);
        self.mouse("mousePressed", point, 1);
        self.mouse("mouseReleased", point, 0);
        self.settle();
    }

    /// Drags from one share of an element's width to another.
    pub(crate) fn drag(&mut self, element: &str, from: f64, to: f64) {
        let (from, to) = (self.point(element, [from, 0.4]), self.point(element, [to, 0.5]));
        self.mouse("mouseMoved", from, 0);
        self.mouse("mousePressed", from, 1);
        self.mouse("mouseMoved", [(from[0] + to[0]) / 2.0, to[1]], 1);
        self.mouse("mouseMoved", to, 1);
        self.mouse("mouseReleased", to, 0);
        self.settle();
    }

    /// Has the page prefer `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Keeps a picture of the page, for people to look at.
    pub(crate) fn picture(&mut self, file: &str) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let bytes = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(file), bytes).unwrap();
    }

    /// Fails if the page has complained.
    pub(crate) fn assert_content(&mut self) {
        self.value("1");
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own processes when it is asked to; else it has ended already.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.child.wait();
    }
}
