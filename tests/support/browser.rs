//! A headless Chromium, driven over its own protocol (<https://chromedevtools.github.io/devtools-protocol/>).

use super::{WAIT_TIMEOUT, eventually};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// Under these names the program is installed: Debian's, Ubuntu's, Google's.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Flags with which the browser connects only to the page.
const QUIET: [&str; 8] = [
    "--headless",
    "--no-sandbox", // tests run as root, too; it opens no page but ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];
/// The longest time until Chromium answers: the machine may be busy with other tests.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// One tab. Dropping it ends the browser and removes its profile.
pub struct Browser {
    child: Child,
    profile: PathBuf,
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    asked: u64,
    events: Vec<Value>,
}

impl Browser {
    /// Opens a page in a window of this size; `dir` takes the profile.
    pub fn open(url: &str, size: (u32, u32), dir: &Path) -> Self {
        let profile = dir.join(format!("chromium-{:08x}", rand::random::<u32>()));
        let mut child = NAMES
            .iter()
            .find_map(|name| {
                let mut command = Command::new(name);
                command.args(QUIET).arg("--remote-debugging-port=0").arg("--remote-allow-origins=*");
                command.arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
            })
            .expect("a Chromium: ./ci/test installs one");
        let port = eventually(WAIT_TIMEOUT, "Chromium listens", || {
            assert_eq!(child.try_wait().expect("a child of ours"), None, "Chromium ended");
            let port = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
            port.lines().next().and_then(|line| line.parse::<u16>().ok()).ok_or("no port yet")
        });
        let socket = eventually(WAIT_TIMEOUT, "Chromium has a tab", || tab(port).ok_or("none yet"));
        let (socket, _) = tungstenite::connect(&socket).expect("the address that Chromium gave");
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).expect("a timeout above zero");
        }
        let mut browser = Self { child, profile, socket, asked: 0, events: Vec::new() };
        for domain in ["Runtime", "Log", "Network", "Page"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        // A picture is as wide as the window.
        browser.call("Emulation.setScrollbarsHidden", json!({"hidden": true}));
        browser.resize(size);
        browser.go(url);
        browser
    }

    /// Goes to a page.
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    /// Loads the page again, and returns when the old document is gone: a script would still find its nodes.
    #[track_caller]
    pub fn reload(&mut self) {
        self.eval("window.old = true");
        self.call("Page.reload", json!({}));
        self.until(WAIT_TIMEOUT, "window.old === undefined && document.readyState === 'complete'");
    }

    /// Makes the window so large, in CSS pixels; a narrow one is a telephone's.
    pub fn resize(&mut self, (width, height): (u32, u32)) {
        let mobile = width < 600;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// As if the system were set to this colour scheme.
    pub fn scheme(&mut self, name: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": name}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Presses and releases a key.
    pub fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let key = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": if kind == "keyDown" { text } else { "" }});
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// Drags with the mouse from one point of the window to another.
    pub fn drag(&mut self, from: (f64, f64), to: (f64, f64)) {
        for (kind, (x, y)) in [("mouseMoved", from), ("mousePressed", from), ("mouseMoved", to), ("mouseReleased", to)]
        {
            let buttons = i32::from(kind != "mouseReleased");
            let mouse = json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1});
            self.call("Input.dispatchMouseEvent", mouse);
        }
    }

    /// The result of a script, as JSON; of a promise, its result.
    #[track_caller]
    pub fn eval(&mut self, script: &str) -> Value {
        self.try_eval(script).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    fn try_eval(&mut self, script: &str) -> Result<Value, String> {
        let asked = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked);
        match answer["exceptionDetails"].as_object() {
            Some(details) => Err(details["exception"]["description"].to_string()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Waits until a script's result is `true`; it may fail while the page loads.
    #[track_caller]
    pub fn until(&mut self, within: Duration, script: &str) {
        let text = "document.body?.innerText.slice(0, 2000) ?? ''";
        eventually(within, &format!("the page has come to {script}"), || match self.try_eval(script) {
            Ok(Value::Bool(true)) => Ok(()),
            seen => Err((seen, self.try_eval(text))),
        });
    }

    /// Waits until changes are on the screen.
    pub fn settles(&mut self) {
        self.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");
    }

    /// Writes a picture of the whole page.
    pub fn picture(&mut self, path: &Path) {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1});
        let whole = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let answer = self.call("Page.captureScreenshot", whole);
        let picture = BASE64_STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        std::fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory that can be made");
        std::fs::write(path, picture).expect("a file that can be written");
    }

    /// Errors of the console, and of crashed scripts.
    pub fn errors(&mut self) -> Vec<String> {
        self.eval("0"); // takes in what has happened until now
        let wrong = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        self.events.iter().filter(wrong).map(|event| event["params"].to_string()).collect()
    }

    /// The addresses that were asked for anything.
    pub fn requests(&mut self) -> Vec<String> {
        self.eval("0");
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str()).map(str::to_owned).collect()
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let asked = json!({"id": self.asked, "method": method, "params": params});
        self.socket.send(Message::text(asked.to_string())).expect("Chromium listens");
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        while Instant::now() < deadline {
            let message = self.socket.read().unwrap_or_else(|error| panic!("no answer to {method}: {error}"));
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
        panic!("no answer to {method} within {RESPONSE_TIMEOUT:?}");
    }
}

/// The address of the first tab.
fn tab(port: u16) -> Option<String> {
    let list = ureq::get(format!("http://127.0.0.1:{port}/json/list")).call().ok()?.body_mut().read_to_string().ok()?;
    let tabs: Vec<Value> = serde_json::from_str(&list).ok()?;
    let page = tabs.iter().find(|tab| tab["type"] == "page")?;
    page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own processes end with it; killed, they would need a moment to notice.
        let _ = self.socket.send(Message::text(json!({"id": 0, "method": "Browser.close"}).to_string()));
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(super::POLL_INTERVAL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
