//! How a long sum is cut into chains, so that the accuracy contract holds.
//!
//! With u = 2⁻²⁴ the contract grants 8·√K roundings to every term of a sum of K. A term passes through at most `length`
//! of them in its chain of fused multiply-adds, then through one for each later chain that joins the same total, and
//! perhaps through one `more`: the addition of what the result held before, or, where a product is rounded before it is
//! added, that. (A bias costs nothing: the first chain begins with it.) Above [`Chains::A_TOTAL`] chains a third level
//! opens.

/// The chains of a sum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chains {
    /// Terms of a chain at most. At most 1024 for the contract's Frobenius bound.
    pub(super) length: usize,
    /// Chains of a pass.
    pub(super) a_pass: usize,
    /// Whether totals are summed in a higher level.
    pub(super) totals: bool,
}

impl Chains {
    /// Chains summed into one total before it is added to a higher one; √512 u is what keeps the Frobenius error low.
    pub(super) const A_TOTAL: usize = 512;

    /// For a sum of `terms`, computed in `passes` of at most `pass` terms, of which one may meet a rounding `more`.
    pub(super) fn new(terms: usize, passes: usize, pass: usize, more: bool) -> Chains {
        let budget = 8.0 * (terms as f64).sqrt();
        let chains = |a_pass: usize| {
            let totals = passes * a_pass > Chains::A_TOTAL;
            Chains { length: pass.div_ceil(a_pass).max(1), a_pass, totals }
        };
        let mut a_pass = 1;
        while a_pass < pass && (chains(a_pass).roundings(passes) + usize::from(more)) as f64 > budget {
            a_pass += 1;
        }
        chains(a_pass)
    }

    /// Those that a term may meet for certain.
    fn roundings(&self, passes: usize) -> usize {
        let joined = passes * self.a_pass;
        let levels = if self.totals { Chains::A_TOTAL + joined.div_ceil(Chains::A_TOTAL / 2) } else { joined - 1 };
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
                // Passes of few terms are those of layers with huge patches, and few terms in all then.
                if most < 72 && passes > 2 * terms.isqrt() {
                    continue;
                }
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
