//! What the memory pools of all devices have in common.

/// Blocks come in four sizes to the octave, so that one freed fits many later requests and wastes at most a quarter.
/// Of large ones, where that would be many bytes, there are sixteen.
pub fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    let sizes = if bytes < LARGE { 8 } else { 32 };
    let step = (bytes.next_power_of_two() / sizes).max(64);
    bytes.next_multiple_of(step)
}

const LARGE: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::{LARGE, size_class};

    #[test]
    fn a_size_class_wastes_at_most_a_quarter() {
        for bytes in (1..100_000u64).chain([1 << 30, (1 << 30) + 1, 3_000_000_001]) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(64), "{bytes} -> {class}");
            assert!(class <= bytes.max(256) * 5 / 4 + 64, "{bytes} -> {class}");
            assert!(bytes < LARGE || class <= bytes + bytes / 16, "{bytes} -> {class}");
        }
    }
}
