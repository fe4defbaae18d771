//! How a long sum is cut into chains, so that the accuracy contract holds.
//!
//! With u = 2⁻²⁴ the contract grants 8·√K roundings to every term of a sum of K. A term passes through at most `length`
//! of them in its chain of fused multiply-adds, then through one for each later chain that joins the same total, and
//! perhaps through one `more`: the addition of what the result held before, or, where a product is rounded before it is
//! added, that. (A bias costs nothing: the first chain begins with it.) A third level opens above [`Chains::A_TOTAL`]
//! chains, and where no other way is within the contract.

/// The chains of a sum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chains {
    /// Terms of a chain at most.
    pub(super) length: usize,
    /// Chains of a pass.
    pub(super) a_pass: usize,
    /// Chains that one total takes at most before it is added to a higher one, if there is such a level.
    pub(super) a_total: Option<usize>,
}

impl Chains {
    /// What no chain is longer than, for the contract's Frobenius bound.
    const LONGEST: usize = 1024;
    /// Chains summed into one total at most: the Frobenius error grows with the root of their number.
    const A_TOTAL: usize = 512;

    /// For a sum of `terms`, computed in `passes` of at most `pass` terms, of which one may meet a rounding `more`.
    pub(super) fn new(terms: usize, passes: usize, pass: usize, more: bool) -> Chains {
        let budget = 8.0 * (terms as f64).sqrt();
        let fits = |chains: &Chains| (chains.roundings(passes) + usize::from(more)) as f64 <= budget;
        let chains = |a_pass: usize, a_total| Chains { length: pass.div_ceil(a_pass).max(1), a_pass, a_total };
        let as_needed = |a_pass: usize| {
            let joined = passes * a_pass;
            chains(a_pass, (joined > Chains::A_TOTAL).then_some(Chains::A_TOTAL.max(a_pass)))
        };
        // Passes of few terms are many additions to one total, whatever their chains: those of layers with huge patches.
        let in_three = |a_pass: usize| {
            let even = (passes * a_pass).isqrt().clamp(1, Chains::A_TOTAL).max(a_pass);
            chains(a_pass, Some(even))
        };
        let each = || pass.div_ceil(Chains::LONGEST).max(1)..=pass.max(1);
        let found = each().map(as_needed).find(fits).or_else(|| each().map(in_three).find(fits));
        found.unwrap_or_else(|| in_three(pass.max(1)))
    }

    /// Those that a term may meet.
    fn roundings(&self, passes: usize) -> usize {
        let joined = passes * self.a_pass;
        let levels = match self.a_total {
            // A pass is not divided.
            Some(most) => most + joined.div_ceil(most / self.a_pass * self.a_pass),
            None => joined - 1,
        };
        self.length + levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_term_meets_more_roundings_than_the_contract_grants() {
        for terms in (1..5000usize).chain((5000..200_000).step_by(997)).chain([802_816, 10_000_000]) {
            for most in [1, 9, 25, 72, 147, 288] {
                let pass = terms.div_ceil(terms.div_ceil(most));
                let passes = terms.div_ceil(pass);
                let chains = Chains::new(terms, passes, pass, true);
                assert!(chains.length * chains.a_pass >= pass);
                let roundings = chains.roundings(passes) + 1;
                assert!(roundings as f64 <= 8.0 * (terms as f64).sqrt(), "{terms} terms in passes of {pass}");
            }
        }
    }

    #[test]
    fn sums_of_up_to_64_terms_are_one_chain_if_the_pass_is() {
        for terms in 1..=64 {
            assert_eq!(Chains::new(terms, 1, terms, false).a_pass, 1, "{terms}");
        }
    }
}
