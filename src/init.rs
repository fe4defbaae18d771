//! Parameter initialisation, the same values as PyTorch's for the same seed.

use crate::config::Conv2dConfig;

/// Fills a weight and a bias with `torch.nn.Conv2d`'s defaults after `torch.manual_seed(seed)`: both are
/// U(−1/√fan_in, 1/√fan_in) with fan_in = (in_channels / groups) · kernel height · kernel width, weight first. A
/// transposed convolution's fan_in is (out_channels / groups) · …, the size of its weight's inner axes as well.
///
/// He et al., "Delving deep into rectifiers" (2015), with PyTorch's a = √5, for which the bound becomes 1/√fan_in.
pub fn kaiming_uniform(config: &Conv2dConfig, seed: u64, weight: &mut [f32], bias: Option<&mut [f32]>) {
    let fan_in = config.weight_shape()[1..].iter().product::<u64>() as f64;
    let mut random = MersenneTwister::new(seed as u32);
    // PyTorch's weight bound is √3 · (√(2 / (1 + a²)) / √fan_in), its bias bound 1 / √fan_in: equal but for rounding.
    let gain = (2.0f64 / (1.0 + 5.0f64.sqrt().powi(2))).sqrt();
    let weight_bound = 3.0f64.sqrt() * (gain / fan_in.sqrt());
    fill(weight, weight_bound, &mut random);
    if let Some(bias) = bias {
        fill(bias, 1.0 / fan_in.sqrt(), &mut random);
    }
}

fn fill(values: &mut [f32], bound: f64, random: &mut MersenneTwister) {
    let (low, high) = (f64::from(-bound as f32), f64::from(bound as f32));
    for value in values {
        let fraction = f64::from(random.next() & 0x00FF_FFFF) / f64::from(1 << 24);
        *value = fraction.mul_add(high - low, low) as f32;
    }
}

/// MT19937: Matsumoto and Nishimura, "Mersenne twister" (1998), seeded as in their 2002 revision.
struct MersenneTwister {
    state: [u32; MersenneTwister::WORDS],
    next: usize,
}

impl MersenneTwister {
    const WORDS: usize = 624;
    const SHIFT: usize = 397;

    fn new(seed: u32) -> MersenneTwister {
        let mut state = [seed; MersenneTwister::WORDS];
        for at in 1..MersenneTwister::WORDS {
            let previous = state[at - 1] ^ state[at - 1] >> 30;
            state[at] = previous.wrapping_mul(1_812_433_253).wrapping_add(at as u32);
        }
        MersenneTwister { state, next: MersenneTwister::WORDS }
    }

    fn next(&mut self) -> u32 {
        if self.next == MersenneTwister::WORDS {
            for at in 0..MersenneTwister::WORDS {
                let following = self.state[(at + 1) % MersenneTwister::WORDS];
                let mixed = self.state[at] & 0x8000_0000 | following & 0x7FFF_FFFF;
                let twist = if mixed & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.state[at] =
                    self.state[(at + MersenneTwister::SHIFT) % MersenneTwister::WORDS] ^ mixed >> 1 ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9D2C_5680;
        word ^= word << 15 & 0xEFC6_0000;
        word ^ word >> 18
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_mt19937() {
        // The 10,000th draw from the reference implementation's default seed, as the C++ standard gives it.
        let mut random = MersenneTwister::new(5489);
        let last = (0..10_000).map(|_| random.next()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn a_transposed_convolution_counts_its_outputs() {
        let config = Conv2dConfig { transposed: true, groups: 4, ..Conv2dConfig::new(64, 16, [3, 3]) };
        let mut weight = vec![0.0; 64 * 4 * 9];
        kaiming_uniform(&config, 7, &mut weight, None);
        let largest = weight.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        assert!((0.99 / 6.0..=1.0 / 6.0).contains(&largest), "{largest}");
    }

    #[test]
    fn values_fill_the_interval_and_repeat() {
        let config = Conv2dConfig::new(16, 32, [3, 3]);
        let draw = |seed| {
            let (mut weight, mut bias) = (vec![0.0; 32 * 16 * 9], vec![0.0; 32]);
            kaiming_uniform(&config, seed, &mut weight, Some(&mut bias));
            (weight, bias)
        };
        let (weight, bias) = draw(7);
        let bound = 1.0 / 12.0;
        assert!(weight.iter().chain(&bias).all(|value| value.abs() <= bound));
        let largest = weight.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        assert!(largest > 0.99 * bound, "{largest}");
        assert_eq!(draw(7), (weight.clone(), bias));
        assert_ne!(draw(8).0, weight);
    }
}
