//! `orrery model`: the commands that need neither server nor data folder, and a module in a foreign host.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use orrery_tests::instance::binary;
use orrery_tests::venv::run_script;
use serde_json::Value;

const DECAY: &str = r#"
model Decay "falls to nothing"
  parameter Real k(unit = "1/s", min = 0) = 2;
  input Real u(unit = "1/s", start = 0);
  output Real x(start = 1, fixed = true);
  Real y[2](each unit = "1/s");
equation
  der(x) = u - y[1];
  y[1] = k*x;
  y[2] = 2*y[1];
end Decay;
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn model(&self, arguments: &[&str]) -> Output {
        model_in(self.0.path(), arguments)
    }

    fn out(&self, arguments: &[&str]) -> String {
        let output = self.model(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit code and what was said.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.model(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.stdout.is_empty(), "{arguments:?} printed something");
        (output.status.code().unwrap(), said)
    }
}

fn model_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("orrery"));
    // No data folder can be made here, and none is needed.
    command.env("ORRERY_DATA", "/dev/null/none").current_dir(folder);
    command.arg("model").args(arguments).output().unwrap()
}

fn rows(csv: &str) -> (String, Vec<Vec<f64>>) {
    let mut lines = csv.lines();
    let header = lines.next().unwrap().to_owned();
    let numbers = |line: &str| line.split(',').map(|number| number.parse().unwrap()).collect();
    (header, lines.map(numbers).collect())
}

#[test]
fn a_run_prints_both_ends_in_full_precision() {
    let folder = Folder::with("decay.mo", DECAY);
    let (header, ends) = rows(&folder.out(&["run", "decay.mo", "--until", "1"]));
    assert_eq!(header, "time,x,y[1],y[2]");
    assert_eq!((ends.len(), ends[0][0], ends[1][0]), (2, 0.0, 1.0));
    let json: Value = serde_json::from_str(&folder.out(&["run", "decay.mo", "--until", "1", "-o", "json"])).unwrap();
    assert_eq!(json["time"], serde_json::json!([0.0, 1.0]));
    assert_eq!(json["series"]["x"][1].as_f64().unwrap().to_bits(), ends[1][1].to_bits());
    assert_eq!(
        json["series"]["y[2]"][1].as_f64().unwrap().to_bits(),
        ends[1][3].to_bits()
    );
    let statistics = json["statistics"].as_object().unwrap();
    let keys: Vec<&str> = statistics.keys().map(String::as_str).collect();
    for key in ["steps", "rejected", "evaluations", "events", "method"] {
        assert!(keys.contains(&key), "{keys:?}");
    }
}

#[test]
fn options_do_what_they_say() {
    let folder = Folder::with("decay.mo", DECAY);
    let run = |more: &[&str]| rows(&folder.out(&[&["run", "decay.mo", "--until", "0.9"][..], more].concat())).1;
    let times: Vec<f64> = run(&["--every", "0.3"]).iter().map(|row| row[0]).collect();
    assert_eq!(times, [0.0, 0.3, 0.6, 0.9]);
    let (tight, loose) = (
        run(&["--rtol", "1e-10", "--atol", "1e-13"]),
        run(&["--rtol", "1e-3", "--atol", "1e-4"]),
    );
    let exact = (-1.8_f64).exp();
    assert!((tight[1][1] - exact).abs() < 1e-10 && (loose[1][1] - exact).abs() > 1e-9);
    let set = run(&["--set", "k=0", "--set", "start(x)=-3", "--set", "u=1"]);
    assert!((set[1][1] + 2.1).abs() < 1e-9);
    let from = run(&["--from", "-0.1"]);
    assert_eq!(from[0][0], -0.1);
    assert!((from[1][1] - (-2.0_f64).exp()).abs() < 1e-5);
    let fixed = run(&["--method", "rk4", "--step", "0.01"]);
    assert!((fixed[1][1] - exact).abs() < 1e-8);
    let several =
        format!("{DECAY}\nmodel Other output Real z(start = 1, fixed = true); equation der(z) = 1; end Other;");
    let folder = Folder::with("two.mo", &several);
    assert!(folder.out(&["run", "two.mo", "--until", "1"]).starts_with("time,z\n"));
    assert!(
        folder
            .out(&["run", "two.mo", "--model", "Decay", "--until", "1"])
            .starts_with("time,x,")
    );
}

#[test]
fn a_gradient_is_that_of_the_expression() {
    let folder = Folder::with("decay.mo", DECAY);
    let call = [
        "gradient",
        "decay.mo",
        "--until",
        "1",
        "--of",
        "x^2 + 0*y[1]",
        "--wrt",
        "k, start(x)",
        "--rtol",
        "1e-10",
    ];
    let json: Value =
        serde_json::from_str(&folder.out(&[&call[..], &["-o", "json", "--set", "k=1"]].concat())).unwrap();
    let (value, expected) = (json["value"].as_f64().unwrap(), (-2.0_f64).exp());
    assert!((value - expected).abs() < 1e-8);
    assert!((json["gradient"]["k"].as_f64().unwrap() + 2.0 * expected).abs() < 1e-8);
    assert!((json["gradient"]["start(x)"].as_f64().unwrap() - 2.0 * expected).abs() < 1e-8);
    assert!(folder.out(&call).starts_with("name,value\n,0.018"));
    let (code, said) = folder.fails(&["gradient", "decay.mo", "--until", "1", "--of", "x*z", "--wrt", "k"]);
    assert!(code == 1 && said.contains("`z`"), "{said}");
    let (code, said) = folder.fails(&["gradient", "decay.mo", "--until", "1", "--of", "x", "--wrt", "q"]);
    assert!(code == 2 && said.contains("no tunable parameter `q`"), "{said}");
}

#[test]
fn a_gradient_in_little_memory_is_the_same() {
    let folder = Folder::with("decay.mo", DECAY);
    let call = |memory: &'static str| {
        [
            "gradient",
            "decay.mo",
            "--until",
            "20",
            "--of",
            "x^2 + 0*y[1]",
            "--wrt",
            "k, start(x)",
            "--method",
            "rk4",
            "--step",
            "0.01",
            "--memory",
            memory,
        ]
    };
    assert_eq!(folder.out(&call("64KiB")), folder.out(&call("1GiB")));
    let (code, said) = folder.fails(&call("much"));
    assert!(code == 2 && said.contains("64MiB"), "{said}");
    let (code, said) = folder.fails(&call("1KiB"));
    assert!(
        code != 0 && said.contains("1024 bytes") && said.contains("between"),
        "{said}"
    );
}

#[test]
fn a_line_has_first_and_second_derivatives() {
    let folder = Folder::with("decay.mo", DECAY);
    let call = [
        "gradient",
        "decay.mo",
        "--until",
        "1",
        "--of",
        "x^2 + 0*y[1]",
        "--rtol",
        "1e-11",
        "--set",
        "k=1",
    ];
    let out = folder.out(&[&call[..], &["--direction", "k=1, start(x)=0.5", "-o", "json"]].concat());
    let json: Value = serde_json::from_str(&out).unwrap();
    // (1 + s/2)²·e^(−2(1 + s))
    let e = (-2.0_f64).exp();
    for (name, exact) in [("value", e), ("first", -e), ("second", 0.5 * e)] {
        assert!((json[name].as_f64().unwrap() - exact).abs() < 1e-9, "{name} {out}");
    }
    assert!(
        folder
            .out(&[&call[..], &["--direction", "k=1"]].concat())
            .starts_with("value,first,second\n0.135")
    );
    let (code, said) = folder.fails(&[&call[..], &["--direction", "k"]].concat());
    assert!(code == 2 && said.contains("NAME=PART"), "{said}");
    let (code, said) = folder.fails(&[&call[..], &["--direction", "k=1", "--wrt", "k"]].concat());
    assert!(code == 2 && said.contains("--wrt"), "{said}");
}

#[test]
fn a_wrong_call_says_what_would_be_right() {
    let folder = Folder::with("decay.mo", DECAY);
    let run = |more: &[&str]| folder.fails(&[&["run", "decay.mo"][..], more].concat());
    for (arguments, code, word) in [
        (&["--until", "0"][..], 2, "after the start"),
        (&["--until", "1", "--every", "0"], 2, "positive"),
        (&["--until", "1", "--method", "rk4"], 2, "--step"),
        (&["--until", "1", "--set", "k"], 2, "NAME=VALUE"),
        (&["--until", "1", "--set", "k=-1"], 2, "bounds"),
        (&["--until", "1", "--set", "start(z)=1"], 2, "no state `z`"),
        (&["--until", "1", "--set", "kk=1"], 1, "`k`"),
        (&["--until", "1", "--model", "Nothing"], 1, "Nothing"),
        (
            &["--until", "1e9", "--max-steps", "10", "--set", "k=1000"],
            1,
            "limit of 10 steps",
        ),
    ] {
        let output = folder.model(&[&["run", "decay.mo"][..], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    assert_eq!(run(&["--until", "soon"]).0, 2);
    assert_eq!(folder.fails(&["run", "none.mo", "--until", "1"]).0, 3);
}

#[test]
fn a_new_model_checks_runs_and_is_not_overwritten() {
    let folder = Folder::with("unused", "");
    let said = folder.out(&["new", "Kettle"]);
    assert!(said.contains("orrery model run Kettle.mo"));
    assert!(folder.out(&["check", "Kettle.mo"]).starts_with("Kettle: 2 states"));
    assert_eq!(
        rows(&folder.out(&["run", "Kettle.mo", "--until", "3600", "--every", "600"]))
            .1
            .len(),
        7
    );
    assert_eq!(folder.fails(&["new", "Kettle"]).0, 5);
    assert_eq!(folder.fails(&["new", "7up"]).0, 2);
    assert_eq!(folder.fails(&["new", "../up"]).0, 2);
}

#[test]
fn check_points_at_each_error() {
    let wrong = DECAY.replace("y[1] = k*x;", "y[1] = k*z;");
    let folder = Folder::with("wrong.mo", &wrong);
    let (code, said) = folder.fails(&["check", "wrong.mo"]);
    assert_eq!(code, 1);
    assert!(said.contains("wrong.mo:9:") && said.contains("= help:"), "{said}");
    let output = folder.model(&["check", "wrong.mo", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let diagnostics: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (diagnostics[0]["line"].as_u64(), diagnostics[0]["file"].as_str()),
        (Some(9), Some("wrong.mo"))
    );
    // The same diagnostics from every command.
    let (code, run) = folder.fails(&["run", "wrong.mo", "--until", "1"]);
    assert_eq!((code, run), (1, said));
}

#[test]
fn a_bench_measures_both_engines() {
    let folder = Folder::with("decay.mo", DECAY);
    let text = folder.out(&["bench", "decay.mo", "--until", "10", "--seconds", "0.05", "--json"]);
    let measured: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (measured[0]["engine"].as_str(), measured[1]["engine"].as_str()),
        (Some("cranelift"), Some("pulley"))
    );
    assert_eq!(measured[0]["steps"], measured[1]["steps"]);
    assert!(measured[0]["steps_per_s"].as_f64().unwrap() > measured[1]["steps_per_s"].as_f64().unwrap());
}

#[test]
fn a_foreign_host_gets_the_same_bits() {
    let folder = Folder::with("decay.mo", DECAY);
    let module = folder.path("decay.wasm");
    let said = folder.out(&["build", "decay.mo", "-o", "decay.wasm"]);
    assert!(said.contains("model Decay") && said.contains("sha256"), "{said}");
    let ours = folder.out(&[
        "run", "decay.mo", "--until", "2", "--every", "0.25", "--set", "k=3", "--set", "u=0.5",
    ]);
    let theirs = run_script(
        "run_module.py",
        &[
            module.to_str().unwrap(),
            "--until",
            "2",
            "--rows",
            "8",
            "--set",
            "k=3",
            "--input",
            "u=0.5",
        ],
    );
    let ((ours_header, ours), (theirs_header, theirs)) = (rows(&ours), rows(&theirs));
    assert_eq!(ours_header, theirs_header);
    let bits = |rows: &[Vec<f64>]| rows.iter().flatten().map(|value| value.to_bits()).collect::<Vec<u64>>();
    assert_eq!(bits(&ours), bits(&theirs));
}

const STIFF: &str =
    "model Stiff parameter Real mu = 1000; Real y(start = 2, fixed = true); Real v(start = 0, fixed = true);
equation der(y) = v; der(v) = mu*(1 - y^2)*v - y; end Stiff;";

/// The reference is that of the IVP test set, problem VDPOL (release 2.4, 2008).
#[test]
fn stiff_models_are_noticed_and_solved() {
    let folder = Folder::with("stiff.mo", STIFF);
    let solve = |method: &str| -> Value {
        let call = [
            "run", "stiff.mo", "--until", "2000", "--rtol", "1e-8", "-o", "json", "--method", method,
        ];
        serde_json::from_str(&folder.out(&call)).unwrap()
    };
    for method in ["auto", "rodas5p", "esdirk"] {
        let solution = solve(method);
        let end = solution["series"]["y"][1].as_f64().unwrap();
        assert!((end - 1.706_167_732_170_483).abs() < 1e-5, "{method}: {end}");
        let statistics = &solution["statistics"];
        assert!(statistics["steps"].as_u64().unwrap() < 5000, "{statistics}");
        let reason = statistics["reason"].as_str().unwrap_or("");
        assert_eq!(reason.contains("stability"), method == "auto", "{statistics}");
    }
    // On the slow manifold, where both sweeps have all their digits.
    for method in ["auto", "rodas5p", "esdirk"] {
        let check: Value = serde_json::from_str(&folder.out(&[
            "gradient", "stiff.mo", "--until", "500", "--of", "y", "--wrt", "mu", "--rtol", "1e-8", "--method", method,
            "--mode", "check", "-o", "json",
        ]))
        .unwrap();
        assert!(check["difference"].as_f64().unwrap() < 1e-15, "{method}: {check}");
        let found = check["adjoint"]["gradient"]["mu"].as_f64().unwrap();
        assert!((found / 5.151_945e-4 - 1.0).abs() < 1e-4, "{method}: {found}");
    }
}

const BALL: &str = "model Ball
  parameter Real e = 0.8;
  Real h(start = 1, fixed = true);
  Real v(start = 0, fixed = true);
equation
  der(h) = v;
  der(v) = -9.81;
  when h <= 0 then
    reinit(v, -e*pre(v));
  end when;
end Ball;
";

#[test]
fn both_modes_derive_the_same_numbers_through_events() {
    let folder = Folder::with("ball.mo", BALL);
    let call = |mode: &str| -> Value {
        let call = [
            "gradient",
            "ball.mo",
            "--until",
            "1",
            "--of",
            "h",
            "--wrt",
            "e,start(h)",
            "--mode",
            mode,
            "-o",
            "json",
        ];
        serde_json::from_str(&folder.out(&call)).unwrap()
    };
    let check = call("check");
    assert!(check["difference"].as_f64().unwrap() < 1e-12, "{check}");
    assert_eq!(check["adjoint"], call("adjoint"));
    assert_eq!(check["forward"], call("forward"));
    // h = e g T (t − T) − g (t − T)²/2 with T = √(2 h₀/g).
    let (fall, g) = ((2.0_f64 / 9.81).sqrt(), 9.81);
    let expected = g * fall * (1.0 - fall);
    let found = check["adjoint"]["gradient"]["e"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-9, "{found} and not {expected}");
}

#[test]
fn files_are_formatted_once() {
    let folder = Folder::with("ball.mo", &BALL.replace("  Real h", "Real   h"));
    let (code, said) = {
        let output = folder.model(&["fmt", "--check", "ball.mo"]);
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    assert_eq!((code, said.as_str()), (1, "ball.mo\n"));
    folder.out(&["fmt", "ball.mo"]);
    assert_eq!(std::fs::read_to_string(folder.path("ball.mo")).unwrap(), BALL);
    assert_eq!(folder.out(&["fmt", "--check", "ball.mo"]), "");
}

#[test]
fn a_reader_of_messages_that_has_gone_is_no_failure() {
    let folder = Folder::with("decay.mo", DECAY);
    let mut run = Command::new(binary("orrery"));
    run.args(["model", "run"])
        .arg(folder.path("decay.mo"))
        .args(["--until", "1"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(run.stderr.take());
    assert!(run.wait().unwrap().success());
}

#[test]
fn the_guide_shows_what_the_commands_print() {
    let guide = include_str!("../../docs/guides/models.md");
    let folder = Folder(tempfile::tempdir().unwrap());
    folder.out(&["new", "Tank"]);
    let printed = folder.out(&["run", "Tank.mo", "--until", "3600", "--every", "600"]);
    let shown: Vec<&str> = printed.lines().take(3).collect();
    assert!(guide.contains(&shown.join("\n")), "{shown:?}");
}
