//! What the memory pools of all devices have in common.

/// Blocks come in four sizes to the octave, so that one freed fits many later requests and wastes at most a quarter.
pub fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    let step = (bytes.next_power_of_two() / 8).max(64);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn a_size_class_wastes_at_most_a_quarter() {
        for bytes in (1..100_000u64).chain([1 << 30, (1 << 30) + 1, 3_000_000_001]) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(64), "{bytes} -> {class}");
            assert!(class <= bytes.max(256) * 5 / 4 + 64, "{bytes} -> {class}");
        }
    }
}
