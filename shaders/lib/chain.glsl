// Sums run in two levels: so many products are chained before they are added to a second total. The FP32 contract
// allows 8·√K·2⁻²⁴·S. Chains of 4·√K and √K/4 additions of them round 4.25·√K times, and fewer where a sum is split
// into parts; up to K = 256 a chain of 64 and K/64 additions do as well. That holds for every finite input; one long
// chain would break it.
uint chain_of(uint products) {
    return max(64, 4 * uint(sqrt(float(products))));
}
