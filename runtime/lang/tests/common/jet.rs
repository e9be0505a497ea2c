//! Closed forms along a line.

/// A number with its first and second derivative along a line (a Taylor polynomial of degree two).
#[derive(Clone, Copy)]
pub struct Jet(pub [f64; 3]);

impl Jet {
    fn chain(self, f: f64, by: f64, by_twice: f64) -> Jet {
        let [_, first, second] = self.0;
        Jet([f, by * first, by_twice * first * first + by * second])
    }

    pub fn exp(self) -> Jet {
        let value = self.0[0].exp();
        self.chain(value, value, value)
    }

    pub fn ln(self) -> Jet {
        let value = self.0[0];
        self.chain(value.ln(), 1.0 / value, -1.0 / (value * value))
    }

    pub fn pow(self, exponent: f64) -> Jet {
        let by = |times: f64| self.0[0].powf(exponent - times);
        self.chain(by(0.0), exponent * by(1.0), exponent * (exponent - 1.0) * by(2.0))
    }
}

impl From<f64> for Jet {
    fn from(value: f64) -> Jet {
        Jet([value, 0.0, 0.0])
    }
}

macro_rules! operator {
    ($name:ident, $method:ident, |$a:ident, $b:ident| $result:expr) => {
        impl<T: Into<Jet>> std::ops::$name<T> for Jet {
            type Output = Jet;
            fn $method(self, other: T) -> Jet {
                let ($a, $b) = (self.0, other.into().0);
                $result
            }
        }
    };
}
operator!(Add, add, |a, b| Jet([a[0] + b[0], a[1] + b[1], a[2] + b[2]]));
operator!(Sub, sub, |a, b| Jet([a[0] - b[0], a[1] - b[1], a[2] - b[2]]));
operator!(Mul, mul, |a, b| Jet([
    a[0] * b[0],
    a[0] * b[1] + a[1] * b[0],
    a[0] * b[2] + 2.0 * a[1] * b[1] + a[2] * b[0]
]));

/// A value that moves along the line by `part` for each unit of its length.
pub fn moving(value: f64, part: f64) -> Jet {
    Jet([value, part, 0.0])
}
