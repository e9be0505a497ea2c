//! Units at the border between streams (UCUM) and models (Modelica): the same quantity, converted or refused.

/// How to turn a stream's value into a model's: `value * scale + shift`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conversion {
    scale: f64,
    shift: f64,
}

impl Conversion {
    /// The conversion that changes nothing, not even a bit.
    pub const IDENTITY: Self = Self { scale: 1.0, shift: 0.0 };

    /// The conversion from a unit to another; `None` when they measure different things.
    pub fn between(from: &str, to: &str) -> Option<Self> {
        let (from, to) = (canonical(from), canonical(to));
        if from == to {
            return Some(Self::IDENTITY);
        }
        match (from, to) {
            ("Cel", "K") => Some(Self {
                scale: 1.0,
                shift: 273.15,
            }),
            ("K", "Cel") => Some(Self {
                scale: 1.0,
                shift: -273.15,
            }),
            ("%", "1") => Some(Self {
                scale: 0.01,
                shift: 0.0,
            }),
            ("1", "%") => Some(Self {
                scale: 100.0,
                shift: 0.0,
            }),
            ("mW", "W") => Some(Self {
                scale: 0.001,
                shift: 0.0,
            }),
            ("W", "mW") => Some(Self {
                scale: 1000.0,
                shift: 0.0,
            }),
            _ => None,
        }
    }

    /// Converts a value.
    pub fn apply(self, value: f64) -> f64 {
        if self == Self::IDENTITY {
            value
        } else {
            value * self.scale + self.shift
        }
    }
}

/// How a unit is printed for people.
pub fn display(unit: &str) -> &str {
    match canonical(unit) {
        "Cel" => "°C",
        other => other,
    }
}

/// One spelling for the spellings that UCUM and Modelica give the same unit.
fn canonical(unit: &str) -> &str {
    match unit {
        "degC" | "Cel" | "°C" => "Cel",
        "" | "1" => "1",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_agree_and_different_quantities_are_refused() {
        assert_eq!(Conversion::between("Cel", "degC"), Some(Conversion::IDENTITY));
        assert_eq!(Conversion::between("Cel", "K").unwrap().apply(20.0), 293.15);
        assert_eq!(Conversion::between("W", "Cel"), None);
        assert_eq!(display("degC"), "°C");
    }
}
