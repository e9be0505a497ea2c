//! A running Orrery: the real binary in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where the binaries of this build lie: beside the test's own.
///
/// # Panics
/// When the binary was not built; `make test` builds it first.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in <target>/<profile>/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// A started `orrery up`, killed when dropped.
pub struct Instance {
    child: Child,
    /// The page's address without the token.
    pub url: String,
    /// The operator's token.
    pub token: String,
    data: PathBuf,
    messages: Arc<Mutex<String>>,
}

impl Instance {
    /// Starts `orrery up --data DATA --listen 127.0.0.1:0 ARGS…` and waits for its address.
    ///
    /// # Panics
    /// When no address comes within 90 seconds, with all that the process said.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary("orrery"))
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let messages = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&messages));
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            match receiver.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => {
                    if let Some((url, token)) = line.trim().split_once("/?token=") {
                        let (url, token) = (url.to_owned(), token.to_owned());
                        return Self {
                            child,
                            url,
                            token,
                            data: data.to_owned(),
                            messages,
                        };
                    }
                }
                Err(_) => {
                    let exited = child.try_wait().expect("the child can be asked");
                    let said = messages.lock().expect("no panic holds it").clone();
                    assert!(exited.is_none(), "orrery ended with {exited:?}:\n{said}");
                    assert!(Instant::now() < deadline, "no address within 90 s:\n{said}");
                }
            }
        }
    }

    /// Runs a command of the same binary on this instance's data folder.
    pub fn command(&self, arguments: &[&str]) -> Output {
        orrery(&self.data, arguments)
    }

    /// Runs a command that must work and gives its standard output.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn stdout(&self, arguments: &[&str]) -> String {
        stdout_of(&self.command(arguments), arguments)
    }

    /// A GET of the API.
    ///
    /// # Panics
    /// When the answer is no JSON.
    pub async fn get(&self, path: &str) -> Value {
        let request = reqwest::Client::new()
            .get(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token);
        let response = request.send().await.expect("the instance answers");
        let (status, text) = (response.status(), response.text().await.expect("the answer is text"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("GET {path}: {status} {error}: {text}"))
    }

    /// A POST of JSON; gives the status and the answer.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = reqwest::Client::new()
            .post(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token);
        let response = request.json(body).send().await.expect("the instance answers");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// What the process has said on standard error so far.
    pub fn messages(&self) -> String {
        self.messages.lock().expect("no panic holds it").clone()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ctrl-C; gives how long the process took and whether it ended well.
    ///
    /// # Panics
    /// When it has not ended after 20 seconds.
    pub fn interrupt(mut self) -> (Duration, bool) {
        let started = Instant::now();
        let status = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "kill -INT works");
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return (started.elapsed(), status.success());
            }
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "still running:\n{}",
                self.messages()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- orrery said:\n{}", self.messages());
        }
    }
}

/// Runs a command of the binary on a data folder.
pub fn orrery(data: &Path, arguments: &[&str]) -> Output {
    let (first, rest) = arguments.split_first().expect("a command has a name");
    let mut command = Command::new(binary("orrery"));
    command.env("ORRERY_DATA", data).arg(first).args(rest);
    command.output().expect("the binary runs")
}

/// The standard output of a command that must have worked.
///
/// # Panics
/// When it failed, with what it said.
pub fn stdout_of(output: &Output, arguments: &[&str]) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "orrery {arguments:?}: {:?}\n{errors}",
        output.status.code()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks until `check` gives something.
///
/// # Panics
/// When it has given nothing within `limit`.
pub async fn eventually<T>(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0u8; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            into.lock()
                .expect("no panic holds it")
                .push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
}
