// Weight [K][C/g][R][S] to [group][tap][reduced channel][result channel], the order in which an implicit
// GEMM reads it; zeros pad the result channels to a multiple of four. Binding 0 is the raw weight, binding 3
// the packed one.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "lib/problem.glsl"
#include "lib/elements.glsl"

#define FOR_BACKWARD_INPUT (pc.extra_0 != 0) // result channels are the convolution's input channels

void main() {
    uint element = element_index();
    uint c_count = pc.C / pc.groups;
    uint k_count = pc.K / pc.groups;
    uint taps = pc.R * pc.S;
    uint m_count = FOR_BACKWARD_INPUT ? c_count : k_count;
    uint reduced_count = FOR_BACKWARD_INPUT ? k_count : c_count;
    uint row = (m_count + 3) / 4 * 4;
    uint m = element % row;
    uint reduced = element / row % reduced_count;
    uint tap = element / row / reduced_count % taps;
    uint group = element / row / reduced_count / taps;
    if (element == NO_ELEMENT || group >= pc.groups) {
        return;
    }
    uint k = FOR_BACKWARD_INPUT ? reduced : m;
    uint c = FOR_BACKWARD_INPUT ? m : reduced;
    OUTPUT(element) = m < m_count ? INPUT(((group * k_count + k) * c_count + c) * taps + tap) : 0;
}
