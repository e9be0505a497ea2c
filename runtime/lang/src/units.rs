//! Units of measure: reading Modelica's unit strings and checking what may be added, compared and equated.
//!
//! A unit is seven exponents, a scale and whether it is a point on a shifted scale (`degC`). Modelica converts nothing:
//! a number means what its unit says, so `kW` beside `W` is as wrong as `K` beside `W`. Numbers written in a formula
//! have no unit. Added, they take that of the other side; as factors they may convert (`x/100` turns `%` into `1`,
//! `t*60` turns `min` into `s`), and are remembered so that the check can allow exactly that.

use std::fmt::Write as _;

/// Exponents are counted in twelfths, so that roots stay exact.
const DENOMINATOR: i32 = 12;
/// Factors remembered as possible conversions.
const MAX_FACTORS: usize = 5;

/// What is known of an expression's unit.
#[derive(Debug, Clone, PartialEq)]
pub enum Unit {
    /// Nothing is known: a number in a sum, or a variable without a unit. Fits everything.
    Any,
    /// A unit.
    Known(Measure),
}

/// A known unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// m, kg, s, A, K, mol, cd.
    exponents: [i32; 7],
    /// Value in coherent SI units of one of it.
    scale: f64,
    /// Point on the Celsius scale: a temperature, not a difference.
    celsius: bool,
    /// Numbers that multiplied it in the formula.
    factors: Vec<f64>,
    /// `time` and its multiples: seconds that may also stand for a plain number, as in `sin(2*time)`.
    bare: bool,
}

const BASES: [&str; 7] = ["m", "kg", "s", "A", "K", "mol", "cd"];

impl Measure {
    fn plain(exponents: [i32; 7], scale: f64) -> Measure {
        Measure {
            exponents,
            scale,
            celsius: false,
            factors: Vec::new(),
            bare: false,
        }
    }

    /// The unit 1.
    pub fn one() -> Measure {
        Measure::plain([0; 7], 1.0)
    }

    /// The second.
    pub fn second() -> Measure {
        let mut exponents = [0; 7];
        exponents[2] = DENOMINATOR;
        Measure::plain(exponents, 1.0)
    }

    /// The unit of `time`.
    pub fn time() -> Measure {
        Measure {
            bare: true,
            ..Measure::second()
        }
    }

    /// Whether this may be the argument of a function of plain numbers.
    pub fn is_plain(&self) -> bool {
        self.bare || self.fits(&Measure::one())
    }

    /// Whether a quantity of this unit may stand where one of `other` is wanted.
    pub fn fits(&self, other: &Measure) -> bool {
        if self.exponents != other.exponents || self.celsius != other.celsius {
            return false;
        }
        let wanted = self.scale / other.scale;
        let factors: Vec<f64> = self
            .factors
            .iter()
            .copied()
            .chain(other.factors.iter().map(|factor| 1.0 / factor))
            .collect();
        let subsets = 1_u32 << factors.len().min(2 * MAX_FACTORS);
        (0..subsets).any(|subset| {
            let chosen = factors
                .iter()
                .enumerate()
                .filter(|(index, _)| subset & (1 << index) != 0);
            let product: f64 = chosen.map(|(_, factor)| *factor).product();
            (product / wanted - 1.0).abs() < 1e-6
        })
    }

    /// The unit of a product (`sign` 1) or a quotient (`sign` −1).
    pub fn times(&self, other: &Measure, sign: i32) -> Measure {
        let mut exponents = self.exponents;
        for (exponent, more) in exponents.iter_mut().zip(other.exponents) {
            *exponent += sign * more;
        }
        let scale = if sign > 0 {
            self.scale * other.scale
        } else {
            self.scale / other.scale
        };
        let mut result = Measure::plain(exponents, scale);
        result.factors = self.factors.clone();
        result.factors.extend(
            other
                .factors
                .iter()
                .map(|factor| if sign > 0 { *factor } else { 1.0 / factor }),
        );
        result.factors.truncate(MAX_FACTORS);
        result
    }

    /// The unit after multiplication by a number of the formula.
    pub fn times_number(&self, number: f64) -> Measure {
        let mut result = self.clone();
        result.celsius = false;
        if number != 0.0 && number.abs() != 1.0 && result.factors.len() < MAX_FACTORS {
            result.factors.push(number.abs());
        }
        result
    }

    /// The unit of a power; `None` if an exponent would not be a twelfth.
    pub fn power(&self, exponent: f64) -> Option<Measure> {
        let mut exponents = self.exponents;
        for each in &mut exponents {
            let raised = f64::from(*each) * exponent;
            if (raised - raised.round()).abs() > 1e-9 || raised.abs() > 1e6 {
                return None;
            }
            *each = raised.round() as i32;
        }
        let raised = Measure::plain(exponents, libm::pow(self.scale, exponent));
        Some(Measure {
            bare: self.bare,
            ..raised
        })
    }

    /// As a difference: a Celsius point becomes kelvin.
    pub fn difference(&self) -> Measure {
        Measure {
            celsius: false,
            ..self.clone()
        }
    }

    /// Whether this is a point on the Celsius scale.
    pub fn is_celsius(&self) -> bool {
        self.celsius
    }

    /// The same point in kelvin or Celsius, for `T + 273.15` and `T - 273.15`.
    pub fn celsius_point(&self, celsius: bool) -> Option<Measure> {
        let mut kelvin = [0; 7];
        kelvin[4] = DENOMINATOR;
        (self.exponents == kelvin && self.scale == 1.0).then(|| Measure {
            celsius,
            ..self.clone()
        })
    }

    /// As text in base units.
    pub fn describe(&self) -> String {
        if self.celsius {
            return "degC".to_string();
        }
        if *self == Measure::plain(Measure::one().exponents, 0.01) {
            return "%".to_string();
        }
        let mut text = String::new();
        if (self.scale - 1.0).abs() > 1e-12 {
            let _ = write!(text, "{} ", self.scale);
        }
        let mut parts = Vec::new();
        for (base, exponent) in BASES.iter().zip(self.exponents) {
            match exponent {
                0 => {}
                DENOMINATOR => parts.push((*base).to_string()),
                whole if whole % DENOMINATOR == 0 => parts.push(format!("{base}{}", whole / DENOMINATOR)),
                other => parts.push(format!("{base}^({other}/12)")),
            }
        }
        text.push_str(&if parts.is_empty() {
            "1".to_string()
        } else {
            parts.join(".")
        });
        text
    }
}

/// Reads a unit string such as `W/(m2.K)`, `J/(kg.K)`, `degC`, `%`, `1/s`, `kg.m/s2`.
pub fn parse(text: &str) -> Result<Unit, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Unit::Any);
    }
    let characters: Vec<char> = trimmed.chars().collect();
    if characters.len() > 200 {
        return Err("the unit is longer than 200 characters".to_string());
    }
    let mut reader = Reader {
        characters: &characters,
        at: 0,
        nesting: 0,
    };
    let measure = reader.expression()?;
    if let Some(rest) = characters.get(reader.at) {
        return Err(format!("`{rest}` is not expected in the unit \"{trimmed}\""));
    }
    Ok(Unit::Known(measure))
}

struct Reader<'a> {
    characters: &'a [char],
    at: usize,
    nesting: u32,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn expression(&mut self) -> Result<Measure, String> {
        self.nesting += 1;
        if self.nesting > 20 {
            return Err("the unit nests too deep".to_string());
        }
        let mut result = self.factor()?;
        let mut composed = false;
        loop {
            let sign = match self.peek() {
                Some('.' | '*' | '·') => 1,
                Some('/') => -1,
                _ => break,
            };
            self.at += 1;
            result = result.difference().times(&self.factor()?.difference(), sign);
            composed = true;
        }
        self.nesting -= 1;
        Ok(if composed { result.difference() } else { result })
    }

    fn factor(&mut self) -> Result<Measure, String> {
        let base = match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.expression()?;
                if self.peek() != Some(')') {
                    return Err("a `)` is missing in the unit".to_string());
                }
                self.at += 1;
                inner
            }
            Some(digit) if digit.is_ascii_digit() => {
                let number = self.digits();
                let value: f64 = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
                let power = if value == 10.0 { self.exponent()? } else { None };
                return Ok(Measure::plain(
                    [0; 7],
                    power.map_or(value, |power| libm::pow(value, f64::from(power))),
                ));
            }
            Some('%') => {
                self.at += 1;
                Measure::plain([0; 7], 0.01)
            }
            Some(letter) if letter.is_alphabetic() || letter == 'µ' || letter == '_' => {
                let start = self.at;
                while self.peek().is_some_and(|c| c.is_alphabetic() || c == 'µ' || c == '_') {
                    self.at += 1;
                }
                let name: String = self.characters[start..self.at].iter().collect();
                symbol(&name)?
            }
            Some(other) => return Err(format!("`{other}` is not expected in a unit")),
            None => return Err("the unit ends too early".to_string()),
        };
        match self.exponent()? {
            None => Ok(base),
            Some(power) => base
                .difference()
                .power(f64::from(power))
                .ok_or_else(|| "this power is too large".to_string()),
        }
    }

    fn digits(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        self.characters[start..self.at].iter().collect()
    }

    fn exponent(&mut self) -> Result<Option<i32>, String> {
        let raised = self.peek() == Some('^');
        if raised {
            self.at += 1;
        }
        let negative = match self.peek() {
            Some('-') => true,
            Some('+') => false,
            Some(c) if c.is_ascii_digit() => {
                let digits = self.digits();
                return digits
                    .parse::<i32>()
                    .ok()
                    .filter(|power| *power < 100)
                    .map(Some)
                    .ok_or("an exponent is too large".to_string());
            }
            _ if raised => return Err("an exponent is missing after `^`".to_string()),
            _ => return Ok(None),
        };
        self.at += 1;
        let digits = self.digits();
        let power: i32 = digits
            .parse()
            .map_err(|_| "an exponent is missing after its sign".to_string())?;
        if power >= 100 {
            return Err("an exponent is too large".to_string());
        }
        Ok(Some(if negative { -power } else { power }))
    }
}

/// Exponents of m, kg, s, A, K, mol, cd, then the scale.
type Entry = (&'static str, [i32; 7], f64);

const SYMBOLS: [Entry; 34] = [
    ("m", [1, 0, 0, 0, 0, 0, 0], 1.0),
    ("g", [0, 1, 0, 0, 0, 0, 0], 1e-3),
    ("s", [0, 0, 1, 0, 0, 0, 0], 1.0),
    ("A", [0, 0, 0, 1, 0, 0, 0], 1.0),
    ("K", [0, 0, 0, 0, 1, 0, 0], 1.0),
    ("mol", [0, 0, 0, 0, 0, 1, 0], 1.0),
    ("cd", [0, 0, 0, 0, 0, 0, 1], 1.0),
    ("rad", [0; 7], 1.0),
    ("sr", [0; 7], 1.0),
    ("Hz", [0, 0, -1, 0, 0, 0, 0], 1.0),
    ("N", [1, 1, -2, 0, 0, 0, 0], 1.0),
    ("Pa", [-1, 1, -2, 0, 0, 0, 0], 1.0),
    ("J", [2, 1, -2, 0, 0, 0, 0], 1.0),
    ("W", [2, 1, -3, 0, 0, 0, 0], 1.0),
    ("C", [0, 0, 1, 1, 0, 0, 0], 1.0),
    ("V", [2, 1, -3, -1, 0, 0, 0], 1.0),
    ("F", [-2, -1, 4, 2, 0, 0, 0], 1.0),
    ("Ohm", [2, 1, -3, -2, 0, 0, 0], 1.0),
    ("S", [-2, -1, 3, 2, 0, 0, 0], 1.0),
    ("Wb", [2, 1, -2, -1, 0, 0, 0], 1.0),
    ("T", [0, 1, -2, -1, 0, 0, 0], 1.0),
    ("H", [2, 1, -2, -2, 0, 0, 0], 1.0),
    ("lm", [0, 0, 0, 0, 0, 0, 1], 1.0),
    ("lx", [-2, 0, 0, 0, 0, 0, 1], 1.0),
    ("Bq", [0, 0, -1, 0, 0, 0, 0], 1.0),
    ("Gy", [2, 0, -2, 0, 0, 0, 0], 1.0),
    ("Sv", [2, 0, -2, 0, 0, 0, 0], 1.0),
    ("kat", [0, 0, -1, 0, 0, 1, 0], 1.0),
    ("l", [3, 0, 0, 0, 0, 0, 0], 1e-3),
    ("L", [3, 0, 0, 0, 0, 0, 0], 1e-3),
    ("bar", [-1, 1, -2, 0, 0, 0, 0], 1e5),
    ("eV", [2, 1, -2, 0, 0, 0, 0], 1.602176634e-19),
    ("t", [0, 1, 0, 0, 0, 0, 0], 1e3),
    ("M", [-3, 0, 0, 0, 0, 1, 0], 1e3),
];

/// Units that take no prefix.
const WHOLE: [Entry; 17] = [
    ("min", [0, 0, 1, 0, 0, 0, 0], 60.0),
    ("h", [0, 0, 1, 0, 0, 0, 0], 3600.0),
    ("d", [0, 0, 1, 0, 0, 0, 0], 86400.0),
    ("deg", [0; 7], 0.017453292519943295),
    ("rev", [0; 7], std::f64::consts::TAU),
    ("rpm", [0, 0, -1, 0, 0, 0, 0], 0.10471975511965977),
    ("ppm", [0; 7], 1e-6),
    ("atm", [-1, 1, -2, 0, 0, 0, 0], 101325.0),
    ("ha", [2, 0, 0, 0, 0, 0, 0], 1e4),
    ("kn", [1, 0, -1, 0, 0, 0, 0], 0.5144444444444445),
    ("kmh", [1, 0, -1, 0, 0, 0, 0], 0.2777777777777778),
    ("percent", [0; 7], 0.01),
    ("u", [0, 1, 0, 0, 0, 0, 0], 1.66053906892e-27),
    ("degF", [0, 0, 0, 0, 1, 0, 0], 0.5555555555555556),
    ("molar", [-3, 0, 0, 0, 0, 1, 0], 1e3),
    ("Ω", [2, 1, -3, -2, 0, 0, 0], 1.0),
    ("dB", [0; 7], 1.0),
];

const PREFIXES: [(&str, f64); 21] = [
    ("da", 1e1),
    ("y", 1e-24),
    ("z", 1e-21),
    ("a", 1e-18),
    ("f", 1e-15),
    ("p", 1e-12),
    ("n", 1e-9),
    ("u", 1e-6),
    ("µ", 1e-6),
    ("m", 1e-3),
    ("c", 1e-2),
    ("d", 1e-1),
    ("h", 1e2),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Z", 1e21),
    ("Y", 1e24),
];

fn symbol(name: &str) -> Result<Measure, String> {
    if name == "degC" || name == "Cel" {
        let mut measure = Measure::plain([0, 0, 0, 0, DENOMINATOR, 0, 0], 1.0);
        measure.celsius = true;
        return Ok(measure);
    }
    let make =
        |entry: &Entry, prefix: f64| Measure::plain(entry.1.map(|exponent| exponent * DENOMINATOR), entry.2 * prefix);
    if let Some(entry) = WHOLE.iter().chain(&SYMBOLS).find(|entry| entry.0 == name) {
        return Ok(make(entry, 1.0));
    }
    for (prefix, factor) in PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix)
            && let Some(entry) = SYMBOLS.iter().find(|entry| entry.0 == rest)
        {
            // 1e-3 · 1e3 and the like come out exact for the kilogram.
            let scale = if name == "kg" { 1.0 } else { entry.2 * factor };
            return Ok(Measure::plain(entry.1.map(|exponent| exponent * DENOMINATOR), scale));
        }
    }
    Err(format!("`{name}` is not a unit known here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Measure {
        match parse(text) {
            Ok(Unit::Known(measure)) => measure,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn derived_units_agree() {
        assert!(known("W").fits(&known("J/s")));
        assert!(known("W").fits(&known("kg.m2/s3")));
        assert!(known("J/(kg.K)").fits(&known("m2/(s2.K)")));
        assert!(known("Ohm").fits(&known("V/A")));
        assert!(known("1/s").fits(&known("s-1")));
        assert!(!known("kW").fits(&known("W")));
        assert!(!known("K").fits(&known("degC")));
        assert!(!known("%").fits(&known("1")));
    }

    #[test]
    fn numbers_may_convert_and_nothing_else() {
        assert!(known("%").times_number(0.01).fits(&known("1")));
        assert!(known("%").times_number(0.5).times_number(0.01).fits(&known("1")));
        assert!(known("min").times_number(60.0).fits(&known("s")));
        assert!(known("kW").times_number(2.0).fits(&known("kW")));
        assert!(!known("kW").times_number(2.0).fits(&known("W")));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["furlong", "W/(m2", "m^", "kg..m", "s-", &"(".repeat(100)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
