//! Rows as comma-separated values: numbers as the shortest decimals that read back the same.

use std::fmt::Write as _;

use orrery_lang::abi::Rows;

/// `time,<names>`; a name with a comma (`a[1,2]`) is quoted.
pub fn csv_header(names: &[String]) -> String {
    let mut line = String::from("time");
    for name in names {
        line.push(',');
        if name.contains([',', '"']) {
            let _ = write!(line, "\"{}\"", name.replace('"', "\"\""));
        } else {
            line.push_str(name);
        }
    }
    line.push('\n');
    line
}

/// One line a row.
pub fn csv_rows(rows: &Rows) -> String {
    let mut text = String::with_capacity(rows.times.len() * (rows.columns + 1) * 20);
    for (at, time) in rows.times.iter().enumerate() {
        push(&mut text, *time);
        for value in rows.row(at) {
            text.push(',');
            push(&mut text, *value);
        }
        text.push('\n');
    }
    text
}

/// The shortest decimal that reads back as this number.
pub fn number(value: f64) -> String {
    let mut text = String::new();
    push(&mut text, value);
    text
}

fn push(text: &mut String, value: f64) {
    let _ = write!(text, "{value:?}");
    if text.ends_with(".0") {
        text.truncate(text.len() - 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back() {
        for value in [
            0.0,
            -0.0,
            1.0,
            0.1,
            1e300,
            5e-324,
            -2.5,
            1.0 / 3.0,
            123_456_789_012.0,
            1e12,
        ] {
            let text = number(value);
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
        }
        assert_eq!(
            (number(3.0), number(1e12), number(1e300)),
            ("3".into(), "1000000000000".into(), "1e300".into())
        );
    }

    #[test]
    fn names_with_commas_are_quoted() {
        let names = ["x", "a[1,2]", "y[1]"].map(str::to_owned);
        assert_eq!(csv_header(&names), "time,x,\"a[1,2]\",y[1]\n");
    }
}
