//! Arrays made of arrays, and elements chosen while the model runs.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, errors, final_values, render, until};
use orrery_lang::abi::Code;

fn value(declarations: &str, expression: &str) -> f64 {
    let source = format!("model M {declarations} output Real r; equation r = {expression}; end M;");
    final_values(&source, 1.0)["r"]
}

/// Every element in its place: digits of one number.
fn digits(matrix: &str, rows: usize, columns: usize) -> f64 {
    value(
        &format!("Real a[{rows}, {columns}] = {matrix};"),
        &format!("sum(a[i, j]*10^(({rows} - i)*{columns} + {columns} - j) for i in 1:{rows}, j in 1:{columns})"),
    )
}

#[test]
fn brackets_join_scalars_vectors_and_matrices() {
    assert_eq!(digits("[1, 2; 3, 4]", 2, 2), 1234.0);
    assert_eq!(digits("[{1, 2}, {3, 4}]", 2, 2), 1324.0);
    assert_eq!(digits("[{1, 2}; {3, 4}]", 4, 1), 1234.0);
    assert_eq!(digits("[{{1, 2}, {3, 4}}, {5, 6}; {{7, 8, 9}}]", 3, 3), 125_346_789.0);
    assert_eq!(digits("cat(1, [1, 2], [3, 4; 5, 6])", 3, 2), 123_456.0);
    assert_eq!(digits("cat(2, [1; 2], [3, 4; 5, 6])", 2, 3), 134_256.0);
    assert_eq!(value("", "{1, 10, 100}*cat(1, {1, 2}, {3})"), 321.0);
    for bad in ["[{1, 2}, {3}]", "[1, 2; 3]", "cat(3, {1}, {2})", "cat(1, {1}, {{2}})"] {
        let text = render(&errors(&format!("model M Real x = sum({bad}); end M;")));
        assert!(
            text.contains("cannot be joined") || text.contains("no dimension 3"),
            "{bad}: {text}"
        );
    }
}

#[test]
fn the_last_of_several_indices_is_the_outermost() {
    // (10.4.1.2) {e for i in a, j in b} is {{e for i in a} for j in b}.
    assert_eq!(
        digits("{2*i + j for i in 1:3, j in 1:2}", 2, 3),
        digits("{{2*i + j for i in 1:3} for j in 1:2}", 2, 3)
    );
    assert_eq!(
        value("", "sum(i*j for i in 1:3, j in 1:i0)".replace("i0", "2").as_str()),
        18.0
    );
    assert_eq!(value("", "max(i - j for i in 1:3, j in {4, 2})"), 1.0);
}

#[test]
fn powers_and_shapes_of_matrices() {
    assert_eq!(digits("[1, 1; 1, 0]^5", 2, 2), 8553.0);
    assert_eq!(digits("[3, 4; 5, 6]^0", 2, 2), 1001.0);
    assert_eq!(digits("symmetric({{1, 2}, {3, 4}})", 2, 2), 1224.0);
    assert_eq!(digits("outerProduct({1, 2}, {3, 4})", 2, 2), 3468.0);
    assert_eq!(
        value("", "{1, 10, 100}*(skew({2, 3, 4})*{5, 6, 7})"),
        value("", "{1, 10, 100}*cross({2, 3, 4}, {5, 6, 7})")
    );
    assert_eq!(
        value("", "scalar({{5}}) + sum(vector([1; 2])) + sum(matrix({3, 4}))"),
        15.0
    );
    let text = render(&errors("model M Real x = sum({{1, 2}, {3, 4}}^time); end M;"));
    assert!(text.contains("whole number"), "{text}");
}

#[test]
fn an_integer_that_changes_chooses_elements() {
    let table = "parameter Real t[3] = {10, 20, 30}; Integer k = 1 + integer(2.9*time);";
    assert_eq!(value(table, "t[k]"), 30.0);
    let matrix = "parameter Real a[3, 3] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}; Integer k = if time > 0.5 then 2 else 1;";
    assert_eq!(
        value(matrix, "100*a[k, 3] + sum(a[:, k]) + sum(a[k + 1, {1, 3}])"),
        600.0 + 15.0 + 16.0
    );
    // Linear between the points of a table, by a function: x² at the points, from 2 to 3 at 2.5.
    let function = "function between input Real x; input Real t[:]; output Real y; protected Integer k; algorithm \
                    k := min(integer(x) + 1, size(t, 1) - 1); y := t[k] + (x - k + 1)*(t[k + 1] - t[k]); end between;";
    let source = format!("{function} model M output Real r = between(2.5*time, {{0, 1, 4, 9}}); end M;");
    assert_eq!(final_values(&source, 1.0)["r"], 6.5);
}

#[test]
fn a_subscript_outside_stops_the_run() {
    let source = "model M parameter Real t[2] = {1, 2}; Integer k = integer(4*time) + 1; Real x(start = 0); \
                  equation der(x) = t[k]; end M;";
    let mut machine = Machine::new(source);
    let (status, _) = machine.run(&until(1.0, 1));
    assert_eq!(status.code, Code::Assertion);
    assert!((status.time - 0.5).abs() < 1e-6, "{}", status.time);
}

#[test]
fn sizes_follow_from_components() {
    let source = "model B parameter Integer n = 1; parameter Integer m[2] = {3, 4}; end B; \
                  model M B b[2](n = {2, 3}); Real x[b[2].n] = fill(1, b[2].n); Real y[b[1].m[2]] = zeros(b[1].m[2]); \
                  output Real r = 10*size(x, 1) + size(y, 1); end M;";
    assert_eq!(final_values(source, 1.0)["r"], 34.0);
}
