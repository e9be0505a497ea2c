//! The same problems and methods written by hand in Rust, as one would without a compiler for models.

use std::array::from_fn;
use std::hint::black_box;

pub fn lotka_volterra() -> impl Fn(&[f64; 2]) -> [f64; 2] {
    let [alpha, beta, gamma, delta] = black_box([1.5, 1.0, 3.0, 1.0]);
    move |y| [alpha * y[0] - beta * y[0] * y[1], delta * y[0] * y[1] - gamma * y[1]]
}

/// The equations of tclab.mo: the heaters' temperatures as states.
pub fn board() -> impl Fn(&[f64; 4]) -> [f64; 4] {
    let (q, ambient) = black_box(([50.0, 30.0], 25.0));
    move |y| {
        let fourth = |x: f64| (x * x) * (x * x);
        let radiation = 0.9 * 5.67e-8;
        let (k1, k2, k0) = (y[0] + 273.15, y[1] + 273.15, ambient + 273.15);
        let exchange = 3.0054e-3 * (y[1] - y[0]) + radiation * 2e-4 * (fourth(k2) - fourth(k1));
        let loss = |u: f64, heater: f64, k: f64| u * (heater - ambient) + radiation * 1e-3 * (fourth(k) - fourth(k0));
        [
            (6.7207e-3 * q[0] - loss(3.7134e-3, y[0], k1) + exchange) / 1.6024,
            (4.6143e-3 * q[1] - loss(6.6842e-3, y[1], k2) - exchange) / 1.5104,
            (y[0] - y[2]) / 44.486,
            (y[1] - y[3]) / 44.486,
        ]
    }
}

/// The classical method with `steps` equal steps of `h`.
pub fn rk4<const N: usize>(mut y: [f64; N], h: f64, steps: u32, f: impl Fn(&[f64; N]) -> [f64; N]) -> [f64; N] {
    let along = |y: &[f64; N], k: &[f64; N], h: f64| from_fn(|i| y[i] + h * k[i]);
    for _ in 0..steps {
        let k1 = f(&y);
        let k2 = f(&along(&y, &k1, 0.5 * h));
        let k3 = f(&along(&y, &k2, 0.5 * h));
        let k4 = f(&along(&y, &k3, h));
        y = from_fn(|i| y[i] + h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]));
    }
    y
}

/// Tsitouras 5(4) with the controller of `solve.kernel` and the coefficients written out.
pub fn tsit5<const N: usize>(mut y: [f64; N], end: f64, tolerance: f64, f: impl Fn(&[f64; N]) -> [f64; N]) -> [f64; N] {
    let (mut t, mut wish, mut old) = (0.0_f64, 1e-3_f64, 1e-4_f64);
    let mut k1 = f(&y);
    while t < end {
        let h = wish.min(end - t);
        let k2 = f(&from_fn(|i| y[i] + h * (0.161 * k1[i])));
        let k3 = f(&from_fn(|i| {
            y[i] + h * (-0.008480655492356989 * k1[i] + 0.335480655492357 * k2[i])
        }));
        let k4 = f(&from_fn(|i| {
            y[i] + h * (2.8971530571054935 * k1[i] - 6.359448489975075 * k2[i] + 4.3622954328695815 * k3[i])
        }));
        let k5 = f(&from_fn(|i| {
            let sum = 5.325864828439257 * k1[i] - 11.748883564062828 * k2[i] + 7.4955393428898365 * k3[i];
            y[i] + h * (sum - 0.09249506636175525 * k4[i])
        }));
        let k6 = f(&from_fn(|i| {
            let sum = 5.86145544294642 * k1[i] - 12.92096931784711 * k2[i] + 8.159367898576159 * k3[i];
            y[i] + h * (sum - 0.071584973281401 * k4[i] - 0.028269050394068383 * k5[i])
        }));
        let next: [f64; N] = from_fn(|i| {
            let sum = 0.09646076681806523 * k1[i] + 0.01 * k2[i] + 0.4798896504144996 * k3[i];
            y[i] + h * (sum + 1.379008574103742 * k4[i] - 3.290069515436081 * k5[i] + 2.324710524099774 * k6[i])
        });
        let k7 = f(&next);
        let mut sum = 0.0;
        for i in 0..N {
            let early =
                -0.001_780_011_052_225_777 * k1[i] - 0.0008164344596567469 * k2[i] + 0.007880878010261995 * k3[i];
            let late = -0.1447110071732629 * k4[i] + 0.5823571654525552 * k5[i] - 0.45808210592918697 * k6[i];
            let part = h * (early + late + 0.015151515151515152 * k7[i]);
            sum += (part / (tolerance + tolerance * y[i].abs().max(next[i].abs()))).powi(2);
        }
        let error = (sum / N as f64).sqrt().max(1e-4);
        if error <= 1.0 {
            t += h;
            y = next;
            k1 = k7;
            wish = h / (error.powf(0.17) * old.powf(-0.04) / 0.9).clamp(0.1, 5.0);
            old = error;
        } else {
            wish = h / (error.powf(0.17) / 0.9).clamp(1.1, 5.0);
        }
    }
    y
}
