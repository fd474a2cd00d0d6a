//! Chance that can be had again: the same seed throws the same dice (splitmix64, by Sebastiano Vigna).

#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `most`, which is not 0.
    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).expect("less than a usize")
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Where a text of so many bytes is cut, on its way: seldom, or everywhere.
    pub fn cuts(&mut self, length: usize) -> Vec<usize> {
        match self.below(8) {
            0..=3 => Vec::new(),
            7 if length < 400 => (1..length).collect(),
            _ => (0..=self.below(5)).map(|_| self.below(length.max(1))).collect(),
        }
    }
}
