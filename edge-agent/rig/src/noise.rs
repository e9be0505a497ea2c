//! Repeatable noise: a pure function of (seed, stream, index), so that what a device shows at an instant does not
//! depend on who asked, or how often.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// 32-bit words of the generator that belong to one index; a draw uses far fewer.
const WORDS_PER_INDEX: u128 = 256;

/// One independent source of noise.
#[derive(Debug, Clone)]
pub struct Noise {
    rng: ChaCha8Rng,
}

impl Noise {
    /// The noise number `stream` of `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { rng }
    }

    /// `N` standard normal values that belong to `index`.
    pub fn normal<const N: usize>(&self, index: u64) -> [f64; N] {
        let mut rng = self.at(index);
        std::array::from_fn(|_| rng.sample(StandardNormal))
    }

    /// `N` values, uniform in [0, 1), that belong to `index`.
    pub fn uniform<const N: usize>(&self, index: u64) -> [f64; N] {
        let mut rng = self.at(index);
        std::array::from_fn(|_| rng.random())
    }

    fn at(&self, index: u64) -> ChaCha8Rng {
        let mut rng = self.rng.clone();
        rng.set_word_pos(u128::from(index) * WORDS_PER_INDEX);
        rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_belongs_to_its_seed_stream_and_index() {
        let noise = Noise::new(1, 2);
        assert_eq!(noise.normal::<4>(7), Noise::new(1, 2).normal::<4>(7));
        assert_ne!(noise.normal::<4>(7), noise.normal::<4>(8));
        assert_ne!(noise.normal::<4>(7), Noise::new(1, 3).normal::<4>(7));
        assert_ne!(noise.normal::<4>(7), Noise::new(2, 2).normal::<4>(7));
    }

    #[test]
    fn normal_noise_has_mean_zero_and_variance_one() {
        let noise = Noise::new(3, 0);
        let values: Vec<f64> = (0..20_000).map(|index| noise.normal::<1>(index)[0]).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.03, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.05, "variance {variance}");
    }
}
