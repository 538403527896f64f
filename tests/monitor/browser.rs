//! A headless Chromium, driven with the DevTools protocol over two pipes: commands in at descriptor 3, answers and events out at 4,
//! each ended by a zero byte.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::common::{has_program, wait_within};

/// How long Chromium may take for an answer, and the page for one step: it starts many processes, and an alert is judged over some time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one empty page.
pub struct Browser {
    child: Child,
    commands: File,
    answers: Receiver<Value>,
    session: Option<String>,
    sent: u64,
    errors: Vec<String>,
    _files: tempfile::TempDir,
}

impl Browser {
    /// Starts it. `None`: there is none on this machine.
    pub fn start() -> Option<Browser> {
        let program = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| has_program(name))?;
        let files = tempfile::tempdir().expect("a temporary directory");
        let [commands, answers] = ["commands", "answers"].map(|name| files.path().join(name));
        let made = Command::new("mkfifo").args([&commands, &answers]).status().expect("mkfifo");
        assert!(made.success(), "{made}");
        let mut start = Command::new("sh");
        start.args(["-c", r#"exec "$@" 3<"$COMMANDS" 4>"$ANSWERS""#, "sh", program]);
        start.args([
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-pipe",
        ]);
        // Chromium's own sandbox needs rights that containers and root do not give. Only our page is loaded.
        start.args(["--no-sandbox", "--hide-scrollbars"]);
        start.arg(format!("--user-data-dir={}", files.path().display()));
        start.env("COMMANDS", &commands).env("ANSWERS", &answers).stdout(Stdio::null()).stderr(Stdio::null());
        let child = start.spawn().expect("a shell");
        // In the order in which the shell opens its ends.
        let commands = OpenOptions::new().write(true).open(&commands).expect("the shell opens it");
        let answers = BufReader::new(File::open(&answers).expect("the shell opens it"));
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("Chromium speaks JSON");
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let (session, sent, errors) = (None, 0, Vec::new());
        let mut browser = Browser { child, commands, answers: told, session, sent, errors, _files: files };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sends a command and waits for its answer. Notes the errors that are told meanwhile.
    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        write!(self.commands, "{message}\0").expect("Chromium reads");
        loop {
            let message = self.answers.recv_timeout(PATIENCE).expect("Chromium answers");
            if message["id"] == json!(self.sent) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            let (method, told) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
            let is_error = match method {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => told["type"] == "error",
                "Log.entryAdded" => told["entry"]["level"] == "error",
                _ => false,
            };
            if is_error {
                self.errors.push(told.to_string());
            }
        }
    }

    /// Opens a page.
    #[track_caller]
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// What a script gives on the page.
    #[track_caller]
    pub fn evaluate(&mut self, script: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": script, "returnByValue": true }));
        answer["result"]["value"].clone()
    }

    /// Waits until a script gives true. What it reads may not be there yet.
    #[track_caller]
    pub fn wait(&mut self, what: &str, script: &str) {
        wait_within(PATIENCE, what, || self.evaluate(script) == Value::Bool(true));
    }

    /// Types the token where the page asks for it.
    pub fn give_token(&mut self, token: &str) {
        self.evaluate(&format!(
            "document.querySelector('#token').value = '{token}'; document.querySelector('#login button').click()"
        ));
    }

    /// Takes the size of a phone.
    pub fn phone(&mut self) {
        let size = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Prefers a theme: light or dark.
    pub fn theme(&mut self, theme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": theme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The errors of the page so far, those of its console included.
    pub fn errors(&mut self) -> Vec<String> {
        self.evaluate("1");
        self.errors.clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A failure here cannot be handled, and a panic in a drop would hide the first one.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
