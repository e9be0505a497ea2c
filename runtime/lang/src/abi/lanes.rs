//! The memory of a module for two lanes: that of two modules for one, interleaved word by word. The eight bytes at address a
//! of lane l lie at 2a + 8l, so what one lane sees is written and read with everything else of this layout.
//!
//! Both lanes have the same plan but for the values of parameters, starts and knots.

/// How many lanes there are.
pub const LANES: usize = 2;
const WORD: usize = 8;

/// Copies `image`, what one lane shall see from address `from` on, into the memory of both. `from` and the length are
/// multiples of 8; `None` where the memory is too small.
pub fn write(memory: &mut [u8], lane: usize, from: u32, image: &[u8]) -> Option<()> {
    let start = LANES * from as usize;
    let part = memory.get_mut(start..start + LANES * image.len())?;
    for (pair, word) in part.chunks_exact_mut(LANES * WORD).zip(image.chunks_exact(WORD)) {
        pair[lane * WORD..(lane + 1) * WORD].copy_from_slice(word);
    }
    Some(())
}

/// Copies what one lane sees from address `from` on into `image`, under the same conditions.
pub fn read(memory: &[u8], lane: usize, from: u32, image: &mut [u8]) -> Option<()> {
    let start = LANES * from as usize;
    let part = memory.get(start..start + LANES * image.len())?;
    for (pair, word) in part.chunks_exact(LANES * WORD).zip(image.chunks_exact_mut(WORD)) {
        word.copy_from_slice(&pair[lane * WORD..(lane + 1) * WORD]);
    }
    Some(())
}
