// Measures how fast the device multiplies and adds: chains of fused multiply-adds that depend on nothing else.
// There are enough CHAINS to hide the latency of one. extra_0 is the number of rounds; each is 2 · 4 · CHAINS
// operations a thread.
#version 450
#extension GL_GOOGLE_include_directive : require

#define OUTPUT_ACCESS writeonly
#include "lib/problem.glsl"
#include "lib/elements.glsl"

void main() {
    uint element = element_index();
    if (element == NO_ELEMENT) {
        return;
    }
    vec4 sums[CHAINS];
    [[unroll]] for (uint i = 0; i < CHAINS; ++i) {
        sums[i] = vec4(element + i);
    }
    vec4 factor = vec4(1.0 - 1.0 / float(element + 2));
    for (uint round = 0; round < pc.extra_0; ++round) {
        [[unroll]] for (uint i = 0; i < CHAINS; ++i) {
            sums[i] = fma(sums[i], factor, factor);
        }
    }
    vec4 sum = vec4(0);
    [[unroll]] for (uint i = 0; i < CHAINS; ++i) {
        sum += sums[i];
    }
    OUTPUT(element) = sum.x + sum.y + sum.z + sum.w;
}
