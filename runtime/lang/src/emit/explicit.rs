//! Explicit Runge–Kutta methods as kernel text, unrolled from their tableaux with the coefficients in place: a step's stages
//! and its reverse are most of the work of small models, and a table in memory would cost more than the arithmetic.

use std::fmt::Write as _;

/// A method whose last stage lies at the end of the step, so that its slope starts the next one. Row s of `a` has the
/// weights of the slopes before stage s, `c` the time of each stage as a share of the step.
struct Tableau {
    name: &'static str,
    /// The number that the plan and the tape have for the method.
    kind: u32,
    a: &'static [&'static [f64]],
    c: &'static [f64],
}

const METHODS: [Tableau; 2] = [RK4, TSIT5];

const RK4: Tableau = Tableau {
    name: "rk4",
    kind: 0,
    a: &[
        &[],
        &[0.5],
        &[0.0, 0.5],
        &[0.0, 0.0, 1.0],
        &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
    ],
    c: &[0.0, 0.5, 0.5, 1.0, 1.0],
};

/// Tsitouras, Runge–Kutta pairs of order 5(4) satisfying only the first column simplifying assumption, Computers &
/// Mathematics with Applications 62 (2011) 770–775.
const TSIT5: Tableau = Tableau {
    name: "tsit5",
    kind: 1,
    a: &[
        &[],
        &[0.161],
        &[-0.008480655492356989, 0.335480655492357],
        &[2.8971530571054935, -6.359448489975075, 4.3622954328695815],
        &[
            5.325864828439257,
            -11.748883564062828,
            7.4955393428898365,
            -0.09249506636175525,
        ],
        &[
            5.86145544294642,
            -12.92096931784711,
            8.159367898576159,
            -0.071584973281401,
            -0.028269050394068383,
        ],
        &[
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ],
    ],
    c: &[0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0],
};

/// The functions of every explicit method: `tableau` and `reverse_<name>`.
pub fn text() -> String {
    let mut text = tableaux();
    for method in &METHODS {
        text.push_str(&method.reverse());
    }
    text
}

/// `tableau(ctx, kind)`: A (7 × 7), then C (7) at TABLEAU, for what does not run at every step. Returns the number of stages.
fn tableaux() -> String {
    let mut text = "fn tableau(ctx: i32, kind: i32) -> i32 {\n".to_string();
    for Tableau { kind, a, c, .. } in &METHODS {
        let stages = c.len();
        let _ = writeln!(text, "if kind == {kind} {{ if i32[ctx + TABLEAU_KIND] != kind + 1 {{");
        let _ = writeln!(text, "i32[ctx + TABLEAU_KIND] = kind + 1;");
        let _ = writeln!(text, "for at in 0..56 {{ f64[ctx + TABLEAU + 8 * at] = 0.0; }}");
        for (stage, row) in a.iter().enumerate() {
            for (slope, weight) in row.iter().enumerate() {
                let _ = writeln!(text, "f64[ctx + TABLEAU + {}] = {weight:?};", 56 * stage + 8 * slope);
            }
        }
        for (stage, share) in c.iter().enumerate() {
            let _ = writeln!(text, "f64[ctx + TABLEAU + {}] = {share:?};", 392 + 8 * stage);
        }
        let _ = writeln!(text, "}} return {stages}; }}");
    }
    text.push_str("if SMALL { return implicit_tableau(ctx, kind); }\nreturn 0;\n}\n");
    text
}

impl Tableau {
    /// `reverse_<name>(ctx, x, t, h, dense, early)`: backwards through the step from the state at `x` (its slopes lie behind
    /// it on the tape). LAMBDA has the cotangents of the state at the step's end and gets those of its start. A step that
    /// is `dense` brings cotangents of its slopes (SLOPE_BARS) and of its start (START_BAR); one that is `early` moves
    /// with an event (START_TIME, LENGTH_BAR).
    fn reverse(&self) -> String {
        let last = self.c.len() - 1;
        let mut text = format!(
            "fn reverse_{}(ctx: i32, x: i32, t: f64, h: f64, dense: i32, early: i32) {{\n\
             let slopes = x + 8 * (N + NH);\n",
            self.name
        );
        text.push_str("each i in 0..N {\nlet start = f64[x + 8 * i];\n");
        for slope in 0..last - 1 {
            let _ = writeln!(text, "let k{slope} = f64[slopes + 8 * (N * {slope} + i)];");
        }
        for stage in 1..last {
            let sum = weighted(self.a[stage].iter().enumerate(), |slope| format!("k{slope}"));
            let _ = writeln!(text, "f64[ctx + STAGES + 8 * (N * {stage} + i)] = start + h * ({sum});");
        }
        text.push_str("}\n");
        // The slope at the end is that of the next step: here only values between the steps need it.
        let _ = writeln!(
            text,
            "if dense {{\neach i in 0..N {{ f64[ctx + SEEDS + 8 * i] = f64[{}]; }}",
            bar(last)
        );
        text.push_str(&self.stage(last));
        let _ = writeln!(
            text,
            "each i in 0..N {{ f64[ctx + LAMBDA + 8 * i] += f64[{}]; }}\n}}",
            bar(last)
        );
        let _ = writeln!(text, "if early {{ length_bar(ctx, slopes, {last}, ctx + LAMBDA); }}");
        for stage in (0..last).rev() {
            let column = (stage + 1..=last).map(|row| (row, &self.a[row][stage]));
            let sum = weighted(column, |row| match row {
                row if row == last => "f64[ctx + LAMBDA + 8 * i]".to_string(),
                row => format!("f64[{}]", bar(row)),
            });
            let _ = writeln!(text, "each i in 0..N {{ f64[ctx + SEEDS + 8 * i] = h * ({sum}); }}");
            let _ = writeln!(
                text,
                "if dense {{ each i in 0..N {{ f64[ctx + SEEDS + 8 * i] += f64[{}]; }} }}",
                bar(stage)
            );
            text.push_str(&self.stage(stage));
        }
        let shares: Vec<String> = (0..last).map(|stage| format!("f64[{}]", bar(stage))).collect();
        let _ = writeln!(
            text,
            "each i in 0..N {{ f64[ctx + LAMBDA + 8 * i] += {}; }}",
            shares.join(" + ")
        );
        text.push_str(
            "if dense { each i in 0..N { f64[ctx + LAMBDA + 8 * i] += f64[ctx + START_BAR + 8 * i]; } }\n}\n",
        );
        text
    }

    /// From the cotangent of a stage's slope (SEEDS) to that of its state, which takes the slope's place in SLOPE_BARS.
    fn stage(&self, stage: usize) -> String {
        let share = self.c[stage];
        let time = format!("t + {share:?} * h");
        let state = match stage {
            0 => "x".to_string(),
            stage => format!("ctx + STAGES + 8 * N * {stage}"),
        };
        let settle = format!("settle_stage(ctx, {time}, {share:?});");
        let along = match stage {
            0 => String::new(),
            stage if stage == self.c.len() - 1 => String::new(),
            stage => format!("length_bar(ctx, slopes, {stage}, ctx + SLOPE_BARS + 8 * N * {stage});"),
        };
        format!(
            "rhs_vjp(ctx, {time}, {state}, ctx + (SLOPE_BARS - X_BAR) + 8 * N * {stage});\n\
             if NI + NM > 0 {{ {settle} }} else {{ if early {{ {settle} }} }}\n\
             if early {{ {along} }}\n"
        )
    }
}

/// Σ weight · value, without the zeros.
fn weighted<'a>(terms: impl Iterator<Item = (usize, &'a f64)>, value: impl Fn(usize) -> String) -> String {
    let terms: Vec<String> = terms
        .filter(|(_, weight)| **weight != 0.0)
        .map(|(index, weight)| format!("{weight:?} * {}", value(index)))
        .collect();
    terms.join(" + ")
}

fn bar(stage: usize) -> String {
    format!("ctx + SLOPE_BARS + 8 * (N * {stage} + i)")
}
