//! Broken texts cost one clear error: mutations of real ones never panic the compiler and never keep it busy.

// The compiler knows no time; these tests bound how long it may take.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use orrery_lang::{Options, compile, format};
use proptest::prelude::*;

/// Generous: a busy machine may be slow, an endless loop never ends.
const LONGEST: Duration = Duration::from_secs(20);

const CORPUS: [&str; 6] = [
    include_str!("models/lotka_volterra.mo"),
    include_str!("models/driven.mo"),
    include_str!("../../../deploy/models/tclab.mo"),
    "connector Pin Real v; flow Real i; end Pin; partial model TwoPin Pin p; Pin n; Real v; equation v = p.v - n.v; \
     p.i + n.i = 0; end TwoPin; model R extends TwoPin; parameter Real r = 1; equation v = r*p.i; end R; \
     model M R a[3](each r = 2); Pin q; equation for i in 1:2 loop connect(a[i].n, a[i + 1].p); end for; \
     connect(q, a[1].p); a[3].n.v = time; q.v = 1; end M;",
    "function f input Real x[:]; input Integer n = 3; output Real y = 0; output Real z; protected Integer i = n; \
     algorithm while i > 0 loop i := i - 1; y := y + x[1]; end while; for k in 1:size(x, 1) loop if x[k] > 1 then \
     z := x[k]; break; else z := -1; end if; end for; if y > 2 then return; end if; y := f({y, 1}, n - 3); end f; \
     model M Real a; Real b; equation (a, b) = f({time, 2*time}); end M;",
    "package P constant Real g(unit = \"m/s2\") = 9.81; type H = Real(unit = \"m\", min = 0); model B H h(start = 1); \
     Real v(unit = \"m/s\"); initial equation v = 0; equation der(h) = v; der(v) = -g; when h < 0 then reinit(v, -0.8*pre(v)); \
     elsewhen sample(0, 0.1) then reinit(v, 1); end when; if h > 1 then a = 1; else a = 2; end if; end B; end P;",
];

/// Pieces that change what a text means, more often than single characters do.
const PIECES: [&str; 40] = [
    " if ",
    " then ",
    " else ",
    " for i in 1:1000000 loop ",
    " end for;",
    " end if;",
    " when ",
    " = ",
    " := ",
    ";",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    ".",
    "\"",
    "/*",
    "//",
    "der(",
    "connect(",
    "flow ",
    "input ",
    "parameter ",
    "1e308",
    "-1",
    "0",
    " extends M;",
    " M m;",
    "M[1000]",
    "[100000]",
    " function ",
    " end M;",
    "time",
    "f(f(",
    "'",
    "§",
];

#[derive(Debug, Clone)]
enum Mutation {
    Delete(prop::sample::Index, u8),
    Insert(prop::sample::Index, prop::sample::Index),
    Copy(prop::sample::Index, u8, prop::sample::Index),
    Splice(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use any as a;
    prop_oneof![
        (a::<prop::sample::Index>(), a::<u8>()).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (a::<prop::sample::Index>(), a::<prop::sample::Index>()).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (a::<prop::sample::Index>(), a::<u8>(), a::<prop::sample::Index>())
            .prop_map(|(from, length, to)| Mutation::Copy(from, length, to)),
        (a::<prop::sample::Index>(), a::<prop::sample::Index>()).prop_map(|(at, other)| Mutation::Splice(at, other)),
    ]
}

fn mutate(source: &str, mutations: &[Mutation]) -> String {
    let mut text: Vec<char> = source.chars().collect();
    for mutation in mutations {
        if text.is_empty() {
            break;
        }
        match mutation {
            Mutation::Delete(at, length) => {
                let at = at.index(text.len());
                let end = (at + usize::from(*length) % 20 + 1).min(text.len());
                text.drain(at..end);
            }
            Mutation::Insert(at, piece) => {
                let at = at.index(text.len());
                text.splice(at..at, PIECES[piece.index(PIECES.len())].chars());
            }
            Mutation::Copy(from, length, to) => {
                let from = from.index(text.len());
                let copied: Vec<char> = text[from..].iter().take(usize::from(*length)).copied().collect();
                let to = to.index(text.len());
                text.splice(to..to, copied);
            }
            Mutation::Splice(at, other) => {
                let other: Vec<char> = CORPUS[other.index(CORPUS.len())].chars().collect();
                let at = at.index(text.len());
                text.truncate(at);
                let from = at.min(other.len());
                text.extend(&other[from..]);
            }
        }
    }
    text.into_iter().collect()
}

fn survives(source: &str) {
    let begin = Instant::now();
    let options = Options::default();
    if let Err(errors) = compile(source, "fuzz.mo", &options) {
        assert!(!errors.is_empty());
        for error in errors {
            assert_ne!(error.code, "compiler-defect", "{}", error.render());
            assert!(!error.message.is_empty());
            let _ = error.render();
        }
    }
    if let Ok(formatted) = format(source, "fuzz.mo") {
        assert_eq!(format(&formatted, "fuzz.mo").expect("valid"), formatted);
    }
    assert!(begin.elapsed() < LONGEST, "{:?} for:\n{source}", begin.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn mutated_texts_are_survived(which in any::<prop::sample::Index>(), mutations in prop::collection::vec(mutation(), 1..6)) {
        survives(&mutate(CORPUS[which.index(CORPUS.len())], &mutations));
    }
}

#[test]
fn texts_that_unfold_without_end_are_stopped() {
    let deep = "(".repeat(5000) + &")".repeat(5000);
    for source in [
        "model M equation for a in 1:20000 loop for b in 1:20000 loop end for; end for; end M;".to_string(),
        "model M equation for a in 1:20000 loop for b in 1:20000 loop for c in 1:20000 loop end for; end for; end for; end M;"
            .to_string(),
        "model M M m[20]; end M;".to_string(),
        "model A Real x = 1; end A; model B A a[100]; end B; model C B b[100]; end C; model M C c[100]; end M;".to_string(),
        "model M Real x[20000] = fill(1, 20000); Real y[20000] = x*2; Real z = sum(x .* y); end M;".to_string(),
        "function f input Real x; output Real y = x; algorithm for i in 1:20000 loop for j in 1:20000 loop y := sin(y); \
         end for; end for; end f; model M Real x = f(time); end M;"
            .to_string(),
        "function f input Real x; output Real y = x; algorithm for i in 1:400 loop if y > i then y := y + 1; else y := y - 1; \
         end if; end for; end f; model M Real x = f(time); end M;"
            .to_string(),
        format!("model M Real x = {deep}; end M;"),
        format!("model M Real x = {}1; end M;", "-".repeat(3000)),
        format!("model M {} end M;", "equation if true then ".repeat(3000)),
        format!("model M Real x = {}1; end M;", "1 + ".repeat(100_000)),
        format!(
            "model M Real x; equation if time > 0 then x = 0; {} else x = 2; end if; end M;",
            "elseif time > 1 then x = 1;".repeat(3000)
        ),
        format!(
            "model M Real x; equation if time > 0 then x = 0; {} else x = 2; end if; end M;",
            "elseif time > 1 then x = 1;".repeat(190)
        ),
        format!("model M Real x = {} 1; end M;", "if time > 1 then 2 else ".repeat(90)),
        format!("model M Real x[{}]; end M;", "1, ".repeat(3000)),
    ] {
        survives(&source);
    }
}
