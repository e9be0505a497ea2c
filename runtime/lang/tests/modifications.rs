//! Modifications of components and arrays of them (Modelica 3.6, 7.2), and components with conditions (4.4.5).

#![allow(clippy::unwrap_used)]

mod common;

use common::{errors, final_values, render};
use orrery_lang::{Options, compile};

const CELL: &str = "model Cell parameter Real k = 1; parameter Integer n = 2; Real x(start = k); Real z[n]; \
                    equation der(x) = -k*x; for i in 1:n loop z[i] = i*x; end for; end Cell;";

fn value(body: &str, name: &str) -> f64 {
    let source = format!("{CELL} model Row Cell c[3](each k = 7); end Row; model M {body} end M;");
    final_values(&source, 1.0)[name]
}

fn message(body: &str) -> String {
    render(&errors(&format!("{CELL} model M {body} end M;")))
}

#[test]
fn values_are_split_over_arrays_of_components() {
    assert_eq!(value("Cell c[2](k = {3, 4}); Real y = 10*c[1].k + c[2].k;", "y"), 34.0);
    assert_eq!(
        value("Cell c[2, 2](k = {{1, 2}, {3, 4}}); Real y = c[2, 1].k;", "y"),
        3.0
    );
    assert_eq!(value("Cell c[3](k = {i^2 for i in 1:3}); Real y = c[3].k;", "y"), 9.0);
    assert_eq!(
        value("parameter Real r = 2; Cell c[2](k = r*{1, 2}); Real y = c[2].k;", "y"),
        4.0
    );
    // Lowered once for all: else the work would grow with the square.
    assert_eq!(
        value(
            "Cell c[2500](each n = 1, k = {i for i in 1:2500}); Real y = c[2500].k;",
            "y"
        ),
        2500.0
    );
    // Each element has its own sizes, starts and solution.
    let sizes = value(
        "Cell c[2](k = {1, 2}, n = {1, 3}); Real y = sum(c[1].z) + sum(c[2].z);",
        "y",
    );
    let exact = (-1.0_f64).exp() + 6.0 * 2.0 * (-2.0_f64).exp();
    assert!((sizes - exact).abs() < 1e-8, "{sizes}");
    let starts = value(
        "Cell c[2](each k = 1, x(start = {5, 6})); Real y = c[1].x + c[2].x;",
        "y",
    );
    assert!((starts - 11.0 * (-1.0_f64).exp()).abs() < 1e-8, "{starts}");
}

#[test]
fn each_stops_the_split_where_it_stands() {
    assert_eq!(
        value("Row r[2](c(k = {{1, 2, 3}, {4, 5, 6}})); Real y = r[2].c[1].k;", "y"),
        4.0
    );
    assert_eq!(
        value("Row r[2](each c(k = {1, 2, 3})); Real y = r[2].c[1].k;", "y"),
        1.0
    );
    assert_eq!(value("Row r[2](c(each k = 9)); Real y = r[2].c[1].k;", "y"), 9.0);
    assert_eq!(value("extends Row(c(k = {4, 5, 6})); Real y = c[3].k;", "y"), 6.0);
    assert_eq!(value("Row r; Real y = r.c[3].k;", "y"), 7.0);
}

#[test]
fn what_cannot_be_split_is_refused() {
    for (body, word) in [
        ("Cell c[2](k = 3);", "each name = value"),
        ("Cell c[2](k = {1, 2, 3});", "[3] cannot fill an array of size [2]"),
        ("Real x[3](start = 1); equation der(x) = -x;", "each name = value"),
        ("Real x[3] = 5;", "fill(value, n)"),
        ("parameter Real p[3] = 5; Real x = p[1];", "fill(value, n)"),
        ("Cell c(k = 1, k = 2);", "`k` is modified twice"),
        ("Cell c(x(start = 1), x.start = 2);", "`x.start` is modified twice"),
    ] {
        let text = message(body);
        assert!(text.contains(word), "{body}: {text}");
    }
    // Different attributes of one variable are no conflict.
    common::build(&format!("{CELL} model M Cell c(x(start = 1), x(min = -5)); end M;"));
}

#[test]
fn attributes_of_arrays_are_those_of_their_elements() {
    let source = "model M Real x[2](start = {1, 2}, fixed = {true, false}); initial equation x[2] = 5*x[1]; \
                  equation der(x) = -x; end M;";
    let values = final_values(source, 1.0);
    assert!((values["x[2]"] - 5.0 * (-1.0_f64).exp()).abs() < 1e-8, "{values:?}");
}

#[test]
fn a_parameter_may_be_what_an_initial_equation_finds() {
    // x(1) = 2·exp(−k) with k such that the slope at the start is −3.
    let source = "model M parameter Real k(fixed = false, start = 1); Real x(start = 2, fixed = true); \
                  initial equation der(x) = -3; equation der(x) = -k*x; end M;";
    let values = final_values(source, 1.0);
    assert!((values["k"] - 1.5).abs() < 1e-9, "{values:?}");
    assert!((values["x"] - 2.0 * (-1.5_f64).exp()).abs() < 1e-8, "{values:?}");
    let text = message("parameter Real p(fixed = false) = 3; Real x = p;");
    assert!(text.contains("`start = …`"), "{text}");
}

const BLOCKS: &str = "connector In = input Real; connector Out = output Real; \
                      block Ramp Out y; parameter Real k = 1; equation y = k*time; end Ramp; \
                      block Ten Out y; equation y = 10; end Ten; \
                      block Twice In u; Out y; equation y = 2*u; end Twice;";

#[test]
fn conditions_decide_which_components_there_are() {
    let source = format!(
        "{BLOCKS} model M parameter Boolean ramps = true; Ramp a(k = 3) if ramps; Ten b if not ramps; Twice t; \
         equation connect(a.y, t.u); connect(b.y, t.u); end M;"
    );
    let with = final_values(&source, 1.0);
    assert_eq!((with["t.y"], with["a.y"]), (6.0, 3.0));
    assert!(!with.contains_key("b.y"));
    let options = Options {
        set: vec![("ramps".to_string(), 0.0)],
        ..Options::default()
    };
    let compiled = compile(&source, "test.mo", &options).unwrap();
    let mut machine = common::Machine::on(&common::cranelift(), compiled);
    let rows = machine.good(&common::until(1.0, 1));
    let names = machine.compiled.meta.columns.iter();
    let columns: Vec<(&str, f64)> = names
        .map(|one| one.name.as_str())
        .zip(rows.row(1).iter().copied())
        .collect();
    assert!(columns.contains(&("t.y", 20.0)), "{columns:?}");
    assert!(columns.iter().all(|(name, _)| !name.starts_with("a.")), "{columns:?}");
}

#[test]
fn a_conditional_component_is_named_by_connections_alone() {
    for (body, word) in [
        (
            "parameter Boolean has = true; Ramp a if has; Real x = a.y;",
            "only `connect` can name it",
        ),
        (
            "parameter Boolean has = false; Ramp a if has; Real x = a.y;",
            "only `connect` can name it",
        ),
        ("Ramp a if time > 1; Real x = 1;", "known when compiling"),
        (
            "parameter Real p = 1; Ramp a if p > 0; Real x = 1;",
            "cannot decide the structure",
        ),
    ] {
        let text = render(&errors(&format!("{BLOCKS} model M {body} end M;")));
        assert!(text.contains(word), "{body}: {text}");
    }
}
