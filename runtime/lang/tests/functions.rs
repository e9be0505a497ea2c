//! Functions of the text and algorithm sections.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, errors, final_values, render, until};
use orrery_lang::abi::Code;

fn value(declarations: &str, body: &str) -> f64 {
    let source = format!("{declarations}\nmodel M output Real r; equation {body} end M;");
    final_values(&source, 1.0)["r"]
}

fn message(source: &str) -> String {
    render(&errors(source))
}

#[test]
fn a_function_is_what_its_algorithm_does() {
    let norm = "function norm input Real x[:]; output Real y; protected Real s = 0; algorithm \
                for i in 1:size(x, 1) loop s := s + x[i]^2; end for; y := sqrt(s); end norm;";
    assert_eq!(value(norm, "r = norm({3, 4*time});"), 5.0);
    let named = "function line input Real x; input Real slope = 2; input Real offset = slope + 1; output Real y; \
                 algorithm y := slope*x + offset; end line;";
    assert_eq!(value(named, "r = line(time);"), 5.0);
    assert_eq!(value(named, "r = line(time, offset = 7);"), 9.0);
    assert_eq!(value(named, "r = line(slope = 3, x = time);"), 7.0);
    assert_eq!(value(named, "r = line(time, 5, 6);"), 11.0);
    let nested =
        format!("{named} function twice input Real x; output Real y; algorithm y := line(line(x)); end twice;");
    assert_eq!(value(&nested, "r = twice(time);"), 13.0);
}

#[test]
fn a_function_has_several_results() {
    let polar = "function polar input Real x; input Real y; output Real radius; output Real angle; algorithm \
                 radius := sqrt(x^2 + y^2); angle := atan2(y, x); end polar;";
    let source = format!(
        "{polar} model M output Real r; output Real a; output Real only; equation \
                          (r, a) = polar(3*time, 4*time); (, only) = polar(time, time); end M;"
    );
    let values = final_values(&source, 1.0);
    assert_eq!(values["r"], 5.0);
    assert!((values["a"] - 4.0_f64.atan2(3.0)).abs() < 1e-15);
    assert!((values["only"] - std::f64::consts::FRAC_PI_4).abs() < 1e-15);
    let chained = format!(
        "{polar} function swap input Real x; output Real y; protected Real a; Real b; algorithm \
                           (a, b) := polar(x, x); y := a*b; end swap;"
    );
    assert!((value(&chained, "r = swap(time);") - 2.0_f64.sqrt() * std::f64::consts::FRAC_PI_4).abs() < 1e-15);
    let too_many = format!("{polar} model M Real a; Real b; Real c; equation (a, b, c) = polar(1, 2); end M;");
    assert!(message(&too_many).contains("has 2 results and 3 are wanted"));
}

#[test]
fn conditions_select_and_make_no_events() {
    let limit = "function limit input Real x; output Real y; algorithm \
                 if x > 1 then y := 1; elseif x < -1 then y := -1; else y := x; end if; end limit;";
    for (x, limited) in [("2*time", 1.0), ("-3*time", -1.0), ("0.5*time", 0.5)] {
        assert_eq!(value(limit, &format!("r = limit({x});")), limited);
    }
    let early = "function early input Real x; output Real y; algorithm \
                 if x > 1 then y := 10; return; elseif x < -1 then y := 20; return; end if; y := x; end early;";
    for (x, result) in [("2*time", 10.0), ("-3*time", 20.0), ("0.5*time", 0.5)] {
        assert_eq!(value(early, &format!("r = early({x});")), result);
    }
    let first = "function first input Real x[:]; input Real limit; output Real y = -1; algorithm \
                 for i in 1:size(x, 1) loop if x[i] > limit then y := x[i]; break; end if; end for; end first;";
    assert_eq!(value(first, "r = first({time, 2*time, 3*time}, 1.5);"), 2.0);
    assert_eq!(value(first, "r = first({time, 2*time, 3*time}, 9);"), -1.0);
    let halves = "function halves input Integer n; output Real y = 1; protected Integer i = n; algorithm \
                  while i > 0 loop y := y/2; i := i - 1; end while; end halves;";
    assert_eq!(value(halves, "r = time*halves(3);"), 0.125);
}

#[test]
fn arrays_go_in_and_out() {
    let scan = "function scan input Real x[:]; output Real y[size(x, 1)]; algorithm y[1] := x[1]; \
                for i in 2:size(x, 1) loop y[i] := y[i - 1] + x[i]; end for; end scan;";
    assert_eq!(value(scan, "r = sum(scan({time, 2, 3}));"), 10.0);
    let turn = "function turn input Real m[2, 2]; output Real t[2, 2]; algorithm \
                for i in 1:2, j in 1:2 loop t[i, j] := m[j, i]; end for; end turn;";
    let source = format!("{turn} model M output Real r[2, 2]; equation r = turn([time, 2; 3, 4]); end M;");
    assert_eq!(final_values(&source, 1.0)["r[1,2]"], 3.0);
    let wrong = format!("{turn} model M Real r[2, 2]; equation r = turn([1, 2, 3; 4, 5, 6]); end M;");
    assert!(message(&wrong).contains("for `m[2, 2]`"), "{}", message(&wrong));
}

#[test]
fn a_function_of_elements_takes_arrays() {
    let square = "function scaled input Real x; input Real factor = 1; output Real y; output Real z; algorithm \
                  y := factor*x^2; z := -x; end scaled;";
    assert_eq!(value(square, "r = {1, 10, 100}*scaled({1, 2, 3}*time);"), 941.0);
    // A scalar is the same for all; arrays are taken in step.
    assert_eq!(value(square, "r = {1, 10}*scaled({1, 2}, 2);"), 82.0);
    assert_eq!(value(square, "r = {1, 10}*scaled({1, 2}, factor = {3, 4});"), 163.0);
    assert_eq!(
        value(square, "r = sum({{1, 10}, {100, 1000}}.*scaled({{1, 2}, {3, 4}}));"),
        16_941.0
    );
    let rows = "function norm2 input Real x[:]; output Real y; algorithm y := x*x; end norm2;";
    assert_eq!(value(rows, "r = {1, 100}*norm2({{1, 2}, {3, 4}});"), 2505.0);
    let several = format!("{square} model M Real y[2]; Real z[2]; equation (y, z) = scaled({{1, 2}}*time); end M;");
    let values = final_values(&several, 1.0);
    assert_eq!((values["y[2]"], values["z[2]"]), (4.0, -2.0));
    let text = message(&format!(
        "{square} model M Real y[2] = scaled({{1, 2}}, {{1, 2, 3}}); end M;"
    ));
    assert!(text.contains("bad-size"), "{text}");
}

#[test]
fn recursion_ends_when_compiling() {
    let power = "function power input Real x; input Integer n; output Real y; algorithm \
                 if n == 0 then y := 1; else y := x*power(x, n - 1); end if; end power;";
    assert_eq!(value(power, "r = power(2*time, 5);"), 32.0);
    let short = "function power input Real x; input Integer n; output Real y; algorithm \
                 y := if n == 0 then 1 else x*power(x, n - 1); end power;";
    assert_eq!(value(short, "r = power(2*time, 5);"), 32.0);
    let endless =
        "function f input Real x; output Real y; algorithm y := f(x) + 1; end f; model M Real r = f(1); end M;";
    assert!(message(endless).contains("calls nest deeper"));
    let growing = "function f input Integer n; output Real y; algorithm if n < 1 then y := 1; \
                   else y := f(n - 1) + f(n - 1) + f(n - 1); end if; end f; model M Real r = f(38); end M;";
    assert!(message(growing).contains("too-large"));
    let forever = "function f output Real y = 0; algorithm while true loop y := y; end while; end f; \
                   model M Real r = f(); end M;";
    assert!(message(forever).contains("too-large"));
}

#[test]
fn structure_may_follow_from_functions() {
    let source = "function count input Integer n; output Integer m; algorithm m := n*n; end count; \
                  model M parameter Integer n = 2; output Real x[count(n)]; \
                  equation for i in 1:count(n) loop x[i] = i*time; end for; end M;";
    assert_eq!(final_values(source, 1.0)["x[4]"], 4.0);
}

#[test]
fn packages_hold_functions_and_constants() {
    let source = "package P constant Real g(unit = \"m/s2\") = 9.81; constant Integer n = 2; \
                  type Height = Real(unit = \"m\"); \
                  function fall input Real t(unit = \"s\"); output Height h; algorithm h := g*t^2/n; end fall; \
                  partial model Base Height h; end Base; \
                  model Drop extends Base; output Real y = h/Q.unit; equation h = fall(time); end Drop; \
                  package Q constant Height unit = 1; end Q; end P; \
                  model M extends P.Base; output Real r(unit = \"m\"); output Real s; P.Drop drop; \
                  equation h = P.g*time^2; r = P.fall(2*time) + h; s = drop.y; end M;";
    let values = final_values(source, 1.0);
    assert!((values["r"] - 3.0 * 9.81).abs() < 1e-12);
    assert!((values["s"] - 9.81 / 2.0).abs() < 1e-12);
}

#[test]
fn units_are_checked_through_calls() {
    let area =
        "function area input Real r(unit = \"m\"); output Real a(unit = \"m2\"); algorithm a := 3.14*r^2; end area;";
    let text = message(&format!(
        "{area} model M Real a(unit = \"m2\"); parameter Real t(unit = \"s\") = 1; equation a = area(t); end M;"
    ));
    assert!(text.contains("this is in s, `r` is m"), "{text}");
    let text = message(&format!(
        "{area} model M Real a(unit = \"m\"); equation a = area(1); end M;"
    ));
    assert!(text.contains("unit-clash"), "{text}");
    let inside = "function f input Real r(unit = \"m\");\n output Real a(unit = \"m2\");\nalgorithm\n a := 2*r;\nend f;\n\
                  model M\n Real a(unit = \"m2\") = f(1);\nend M;";
    let text = message(inside);
    assert!(
        text.contains("4:7") && text.contains("note: 7:24: `f` is called here"),
        "{text}"
    );
}

#[test]
fn algorithms_of_models_are_equations_for_what_they_assign() {
    let source = "model M output Real y; output Real z; Real x(start = 1, fixed = true); \
                  algorithm y := x; y := 2*y + 1; z := y^2; equation der(x) = 0; end M;";
    let values = final_values(source, 1.0);
    assert_eq!((values["y"], values["z"]), (3.0, 9.0));
    let sum = "model M output Real s; algorithm s := 0; for i in 1:10 loop s := s + i*time; end for; end M;";
    assert_eq!(final_values(sum, 1.0)["s"], 55.0);
    let branch = "model M output Real s(start = 5); algorithm if noEvent(time > 2) then s := 1; end if; end M;";
    assert_eq!(final_values(branch, 1.0)["s"], 5.0);
}

#[test]
fn what_functions_may_not_do_is_named() {
    for (body, word) in [
        ("y := z;", "`z`"),
        ("x := 1; y := x;", "keeps its value"),
        ("y := der(x);", "`der` has no meaning in a function"),
        ("if x > 1 then y := 1; end if;", "has no value on some path"),
        ("y := y + 1;", "before it has a value"),
        ("while x > 1 loop y := 1; end while;", "how often this `while` runs"),
        ("y := true;", "this is a Boolean and `y` is a Real"),
        ("y := {x, x};", "size"),
        ("y[1] := x;", "subscripts"),
        ("break;", "`break` leaves a loop"),
        ("when x > 1 then y := 1; end when;", "`when` in an algorithm"),
        ("y := x", "expected `;`"),
        ("y = x;", "expected `:=`"),
        ("print(\"a\");", "print"),
        ("for i in 1:x loop y := i; end for;", "known when compiling"),
        ("(y, y) := sin(x);", "no function of this file"),
    ] {
        let text = message(&format!(
            "function f input Real x; output Real y; algorithm {body} end f; model M Real r = f(time); end M;"
        ));
        assert!(text.contains(word), "{body}: {text}");
    }
    for (call, word) in [
        ("f()", "needs a value for its input `x`"),
        ("f(1, 2)", "takes 1 arguments and 2 are given"),
        ("f(1, x = 2)", "given twice"),
        ("f(z = 2)", "no input `z`"),
        ("f({1, 2})", "size [2] where one value is needed"),
        ("f(true)", "this is a Boolean and `x` is a Real"),
        ("g(1)", "no function `g`"),
    ] {
        let text = message(&format!(
            "function f input Real x; output Real y; algorithm y := x; end f; model M Real r = {call}; end M;"
        ));
        assert!(text.contains(word), "{call}: {text}");
    }
    for (function, word) in [
        (
            "function f input Real x; output Real y; equation y = x; end f;",
            "has an equation",
        ),
        (
            "function f input Real x; output Real y; external \"C\"; end f;",
            "`external`",
        ),
        ("partial function f input Real x; output Real y; end f;", "partial"),
        ("function f = sin;", "abbreviates"),
        (
            "function f input Real x; Real q; output Real y; algorithm y := x; end f;",
            "neither input nor output",
        ),
        (
            "function f input String x; output Real y; algorithm y := 1; end f;",
            "String",
        ),
        (
            "record R Real a; end R; function f input R x; output Real y; algorithm y := 1; end f;",
            "is a R",
        ),
        ("function f extends g; end f;", "`extends`"),
    ] {
        let text = message(&format!("{function} model M Real r = f(1); end M;"));
        assert!(text.contains(word), "{function}: {text}");
    }
}

#[test]
fn annotations_are_read_over() {
    let source = "function f \"square\" annotation(derivative = df, Inline = true); input Real x annotation(a = {1, 2}); \
                  output Real y; algorithm y := x^2 \"square\" annotation(b); annotation(smoothOrder = 2); end f; \
                  model M annotation(Documentation(info = \"<html>\")); output Real r \"r\" annotation(Placement()); \
                  equation r = f(3*time) annotation(x = 1); annotation(experiment(StopTime = 1)); end M;";
    assert_eq!(final_values(source, 1.0)["r"], 9.0);
}

#[test]
fn an_assertion_stops_the_run_where_it_fails() {
    let source = "function root\n  input Real x;\n  output Real y;\nalgorithm\n  if x > -10 then\n    assert(x > 0, \"nothing left\");\n  end if;\n  y := sqrt(abs(x));\nend root;\n\
                  model M\n  output Real x(start = 1, fixed = true);\n  output Real y = root(x);\nequation\n  der(x) = -1;\nend M;";
    let mut machine = Machine::new(source);
    machine.good(&until(0.9, 3));
    for rows in [1, 20] {
        let (status, _) = machine.run(&until(3.0, rows));
        assert_eq!(status.code, Code::Assertion);
        assert!((1.0..=3.0).contains(&status.time), "{}", status.time);
        let text = status.describe(&machine.compiled.meta).expect("a failure");
        assert!(text.contains("test.mo:6:5") && text.contains("nothing left"), "{text}");
    }
}
