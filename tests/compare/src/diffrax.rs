//! diffrax in a process of its own (`diffrax_side.py`): one JSON line asks, one answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::Failure;

pub struct Diffrax {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub version: String,
}

/// What one question brought.
pub struct Answer {
    /// The state at the end, or the gradient.
    pub values: Vec<f64>,
    /// Seconds of one run after the first.
    pub seconds: f64,
    /// Seconds of tracing, compiling and the first run, where this question was the first of its kind.
    pub first_s: Option<f64>,
}

impl Diffrax {
    /// Starts the interpreter that `ORRERY_REFERENCES_PYTHON` names; it has diffrax (tests/references/README.md).
    pub fn start() -> Result<Diffrax, Failure> {
        let python = std::env::var("ORRERY_REFERENCES_PYTHON").unwrap_or_else(|_| "python3".to_string());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/diffrax_side.py");
        let mut process = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{python} does not start: {error}"))?;
        let (Some(ask), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("no pipes".into());
        };
        let mut side = Diffrax {
            process,
            ask,
            answers: BufReader::new(answers),
            version: String::new(),
        };
        let hello = side.read()?;
        side.version = hello["version"].as_str().unwrap_or("?").to_string();
        Ok(side)
    }

    pub fn ask(
        &mut self,
        problem: &str,
        method: &str,
        tolerance: f64,
        gradient: bool,
        times: usize,
    ) -> Result<Answer, Failure> {
        let question =
            json!({"problem": problem, "method": method, "tolerance": tolerance, "gradient": gradient, "times": times});
        writeln!(self.ask, "{question}")?;
        let answer = self.read()?;
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_string().into());
        }
        let numbers = answer["values"].as_array().ok_or("no values")?;
        Ok(Answer {
            values: numbers.iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect(),
            seconds: answer["seconds"].as_f64().ok_or("no seconds")?,
            first_s: answer["first_s"].as_f64(),
        })
    }

    fn read(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("diffrax's process ended; its words are above".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Diffrax {
    fn drop(&mut self) {
        // It ends by itself when its input closes; nobody waits for it to finish a run.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
