//! The accuracy contract, as the documentation of `Precision` states it.

use super::reference::{Expected, Sum};

/// What a result is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// |y − ŷ| ≤ 4·√K·2⁻²³·S + floor, for any finite data.
    Fp32,
    /// [`Contract::Fp32`], and a relative Frobenius error of at most 1e-6, for N(0, 1).
    Fp32Normal,
    /// |y − ŷ| ≤ (K+2)·2⁻²⁴·S + floor, for any finite data.
    Ieee,
    /// A relative Frobenius error of at most 1e-3, for N(0, 1).
    FastNormal,
    /// Equality, for small integers.
    Exact,
}

/// The norm of fewer elements may be small by chance, and then a relative error says nothing; they are held to the
/// component-wise bound alone.
const ENOUGH_FOR_A_NORM: usize = 64;

/// Checks `got` (all elements of the tensor), and describes the worst element if any is wrong.
pub fn check(contract: Contract, expected: &Expected, got: &[f32]) -> Result<(), String> {
    let len = expected.shape.iter().product::<u64>() as usize;
    if got.len() != len {
        return Err(format!("{} has {} elements, expected {len}", expected.name, got.len()));
    }
    components(contract, expected, got)?;
    match contract {
        Contract::Fp32Normal => frobenius(expected, got, 1e-6),
        Contract::FastNormal => frobenius(expected, got, 1e-3),
        Contract::Fp32 | Contract::Ieee | Contract::Exact => Ok(()),
    }
}

/// The elements that were computed in float64, beside what the device made of them.
fn pairs<'a>(expected: &'a Expected, got: &'a [f32]) -> impl Iterator<Item = (usize, &'a Sum, f64)> + 'a {
    expected.sums.iter().enumerate().map(|(position, sum)| {
        let index = expected.at.as_ref().map_or(position, |at| at[position]);
        (index, sum, f64::from(got[index]))
    })
}

fn components(contract: Contract, expected: &Expected, got: &[f32]) -> Result<(), String> {
    let bound_of = |sum: &Sum| {
        let k = (expected.reduction * sum.copies) as f64;
        let floor = k * 2f64.powi(-126) * expected.largest.max(1.0);
        match contract {
            Contract::Fp32 | Contract::Fp32Normal => 4.0 * k.max(1.0).sqrt() * 2f64.powi(-23) * sum.magnitude + floor,
            Contract::Ieee => (k + 2.0) * 2f64.powi(-24) * sum.magnitude + floor,
            Contract::FastNormal => f64::INFINITY,
            Contract::Exact => 0.0,
        }
    };
    let mut wrong = 0;
    let mut worst: Option<(f64, String)> = None;
    for (index, sum, got) in pairs(expected, got) {
        let bound = bound_of(sum);
        let excess = if sum.undecided {
            0.0
        } else if !sum.magnitude.is_finite() {
            // It read an infinity or a NaN, and must not hide that.
            if got.is_finite() { f64::INFINITY } else { 0.0 }
        } else if sum.magnitude >= 2f64.powi(127) {
            0.0
        } else if got.is_finite() {
            let error = (got - sum.value).abs();
            if error <= bound { 0.0 } else { error / bound }
        } else {
            f64::INFINITY
        };
        if excess > 0.0 {
            wrong += 1;
            if worst.as_ref().is_none_or(|(most, _)| excess > *most) {
                let text = format!(
                    "{}{:?} is {got:e}, want {:e} within {bound:.3e} (off by {:.3e}; K = {}, S = {:.3e})",
                    expected.name,
                    coordinates(index, &expected.shape),
                    sum.value,
                    (got - sum.value).abs(),
                    expected.reduction * sum.copies,
                    sum.magnitude
                );
                worst = Some((excess, text));
            }
        }
    }
    match worst {
        None => Ok(()),
        Some((_, text)) => Err(format!("{text}; {wrong} of {} elements are wrong", expected.sums.len())),
    }
}

fn frobenius(expected: &Expected, got: &[f32], limit: f64) -> Result<(), String> {
    if expected.sums.len() < ENOUGH_FOR_A_NORM {
        return Ok(());
    }
    let (mut error, mut norm) = (0.0, 0.0);
    for (_, sum, got) in pairs(expected, got) {
        error += (got - sum.value).powi(2);
        norm += sum.value.powi(2);
    }
    if error.sqrt() <= limit * norm.sqrt() {
        return Ok(());
    }
    let relative = (error / norm).sqrt();
    Err(format!(
        "{} has a relative Frobenius error of {relative:.3e}, want at most {limit:e} (K = {})",
        expected.name, expected.reduction
    ))
}

fn coordinates(mut index: usize, shape: &[u64]) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for (place, &size) in at.iter_mut().zip(shape).rev() {
        *place = index % size as usize;
        index /= size as usize;
    }
    at
}
