//! The messages, as an author sees them.

mod common;

use common::{errors, render};

fn first(source: &str) -> String {
    errors(source)[0].render()
}

#[test]
fn an_undefined_variable_is_drawn_with_the_nearest_name() {
    let source = "model Tank\n  parameter Real area = 2;\n  Real level(start = 1);\nequation\n  der(level) = -levle/area;\nend Tank;\n";
    assert_eq!(
        first(source),
        "error[undefined-variable]: `levle` is not declared in Tank\n \
         --> test.mo:5:17\n  |\n5 |   der(level) = -levle/area;\n  |                 ^^^^^\n  = help: did you mean `level`?\n"
    );
}

#[test]
fn a_unit_clash_is_shown_at_the_operator() {
    let source = "model Heat\n  parameter Real p(unit=\"W\") = 1;\n  parameter Real e(unit=\"J\") = 1;\n  Real x(unit=\"W\");\nequation\n  x = 2*p + e;\nend Heat;\n";
    assert_eq!(
        first(source),
        "error[unit-clash]: `+` joins m2.kg.s-3 and m2.kg.s-2\n \
         --> test.mo:6:11\n  |\n6 |   x = 2*p + e;\n  |           ^\n  = help: convert one side, or correct the unit of a declaration\n"
    );
}

#[test]
fn every_clash_of_units_is_found() {
    let declare = "parameter Real w(unit=\"W\")=1; parameter Real kw(unit=\"kW\")=1; parameter Real k(unit=\"K\")=1; \
                   parameter Real c(unit=\"degC\")=1; parameter Real m(unit=\"m\")=1; parameter Real s(unit=\"s\")=1; parameter Real pc(unit=\"%\")=1;";
    for bad in [
        "w + kw",
        "w - k",
        "c + c",
        "m + s",
        "sin(m)",
        "exp(k)",
        "m^s",
        "max(m, s)",
        "pc + 1*pc/w",
        "sqrt(m) + m",
        "c + w",
    ] {
        let source = format!("model U {declare} Real x; equation x = {bad}; end U;");
        let codes: Vec<String> = errors(&source).into_iter().map(|error| error.code).collect();
        assert_eq!(codes, ["unit-clash"], "{bad}");
    }
    for (bad, unit) in [("w", "kW"), ("c", "K"), ("pc", "1"), ("m/s", "m"), ("m*m", "m")] {
        let source = format!("model U {declare} Real x(unit=\"{unit}\"); equation x = {bad}; end U;");
        assert_eq!(errors(&source)[0].code, "unit-clash", "{bad} as {unit}");
    }
    for (good, unit) in [
        ("kw*1000", "W"),
        ("pc/100", "1"),
        ("0.5*pc/100", "1"),
        ("c + 273.15", "K"),
        ("k - 273.15", "degC"),
        ("c - c", "K"),
        ("c + k", "degC"),
        ("m/s*s", "m"),
        ("sqrt(m*m)", "m"),
        ("m^2/m", "m"),
        ("w*s/(w*s)", "1"),
        ("if w > 2 then m else 2*m", "m"),
        ("m + 3", "m"),
        ("exp(m/m)", "1"),
        ("sin(2*time)", "1"),
        ("m/time", "m/s"),
    ] {
        let source = format!("model U {declare} Real x(unit=\"{unit}\"); equation x = {good}; end U;");
        common::build(&source);
    }
}

#[test]
fn balance_is_explained() {
    let text = first("model B\n  Real x;\n  Real y;\nequation\n  x = 1;\nend B;");
    assert!(
        text.contains("no equation determines `y` (1 equations for 2 unknowns)"),
        "{text}"
    );
    let text = first("model B\n  Real x;\nequation\n  x = 1;\n  x = 2;\nend B;");
    assert!(
        text.contains("one too many") && text.contains("test.mo:5:3") && text.contains("note: 4:3"),
        "{text}"
    );
    let text = render(&errors(
        "model P\n Real x; Real y; Real l;\nequation\n der(x) = y; der(y) = -l*x; x^2 = 1;\nend P;",
    ));
    assert!(text.contains("higher index"), "{text}");
}

#[test]
fn loops_are_named() {
    let text = first("model L\n  Real x; Real y;\nequation\n  x = sin(y) + 1;\n  y = cos(x);\nend L;");
    assert!(text.contains("algebraic loop") && text.contains("x, y"), "{text}");
    assert!(text.contains("note: 5:3"), "{text}");
}

#[test]
fn what_belongs_to_events_is_refused_elsewhere() {
    for (body, word) in [
        ("x = pre(x);", "`pre(x)`"),
        ("x = floor(time);", "`floor`"),
        ("x = mod(time, 2);", "`mod`"),
        ("x = delay(x, 1);", "`delay`"),
        ("reinit(x, 1);", "`reinit`"),
        ("when noEvent(time > 1) then x = 1; end when;", "changes at events"),
        ("x = if time == 1 then 1 else 0;", "`==`"),
    ] {
        let text = first(&format!("model R\n  Real x;\nequation\n  {body}\nend R;"));
        assert!(text.contains(word) && text.contains("test.mo:4:"), "{body}: {text}");
    }
    common::build("model R Real x; equation x = noEvent(if time > 1 then 1 else 0); end R;");
    common::build("model R parameter Real p = 1; Real x; equation x = (if p > 1 then 1 else 0) + floor(p); end R;");
}

#[test]
fn what_is_outside_is_refused_by_name() {
    for (source, word) in [
        ("import Modelica.Constants; model M end M;", "model"),
        ("model M import A.B; Real x = 1; end M;", "`import`"),
        ("model M Modelica.Units.SI.Voltage u = 1; end M;", "Standard Library"),
        ("model M outer Real x; end M;", "`outer`"),
        ("model M replaceable Real x = 1; end M;", "`replaceable`"),
        ("model M Integer i; equation i = 2*time; end M;", "continuously"),
        ("model M Real x(stateSelect = 1) = 1; end M;", "stateSelect"),
        ("model M Real x = 1 if true; end M;", "conditional"),
        ("model M Real x = 2 ^ 3 ^ 4; end M;", "chained"),
        ("model M Real x = 1 < 2 < 3; end M;", "chained"),
        ("model M Real x = 2 * -3; end M;", "expected an expression"),
        ("model M type E = enumeration(a, b); end M;", "`enumeration`"),
        ("model M Real x(strat = 1) = 1; end M;", "did you mean `start`"),
        ("model M Real x(unit = \"parsec\") = 1; end M;", "parsec"),
        ("model M parameter Real p; Real x = p; end M;", "has no value"),
        (
            "model M parameter Real p = time; Real x = p; end M;",
            "changes with time",
        ),
        (
            "model M parameter Real p = q; parameter Real q = p; Real x = p; end M;",
            "define each other",
        ),
        ("model M Real x = 1; end N;", "closes"),
        ("model M Real x = 1 end M;", "expected `;`"),
        ("model M Real x == 1; end M;", "expected"),
        ("model M equation 1 == 2; end M;", "expected `=`"),
        ("model M Real x = \"a; end M;", "no end"),
        ("model M Real x = 1 /* ; end M;", "no end"),
        ("model M Real x = 1 § 2; end M;", "no meaning"),
        ("model M Real der = 1; end M;", "keyword"),
        ("model M Real x = snin(1); end M;", "did you mean `sin`"),
        ("model M Real x = sin(1, 2); end M;", "arguments"),
        ("model M Real x[3] = {1, 2}; end M;", "size"),
        ("model M Real x = y[4]; Real y[3] = {1,2,3}; end M;", "element 4"),
        ("", "no model"),
    ] {
        let text = render(&errors(source));
        assert!(text.contains(word), "{source}: {text}");
    }
}

#[test]
fn diagnostics_are_json_for_editors() {
    let errors = errors("model M Real x = y; end M;");
    let json = serde_json::to_value(&errors).expect("json");
    assert_eq!(json[0]["line"], 1);
    assert_eq!(json[0]["column"], 18);
    assert_eq!(json[0]["code"], "undefined-variable");
    assert_eq!(json[0]["source_line"], "model M Real x = y; end M;");
}

/// The guide shows what the compiler says, to the letter.
#[test]
fn the_example_of_the_guide_is_real() {
    let guide = include_str!("../../../docs/guides/modelica-subset.md");
    let mut blocks = guide.split("```");
    let example = blocks
        .nth(1)
        .and_then(|block| block.strip_prefix("modelica\n"))
        .expect("an example");
    let shown = blocks.nth(1).expect("its diagnostic").trim_start();
    let Err(errors) = orrery_lang::compile(example, "tank.mo", &orrery_lang::Options::default()) else {
        panic!("the example has an error on purpose");
    };
    assert_eq!(render(&errors), shown);
    common::build(&example.replace("\"m3/s\") = 0.01", "\"m2/s\") = 0.01"));
}
