// result[i] = Σ over splits of partial[split][i], in the order of the splits, so that the bits never change.
// Binding 0 holds the partial sums, binding 3 the result. With no splits at all the result is zero.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define OUTPUT_ACCESS
#include "lib/problem.glsl"
#include "lib/elements.glsl"

#define SPLITS pc.extra_0
#define ELEMENTS pc.extra_1

void main() {
    uint element = element_index();
    if (element >= ELEMENTS) {
        return;
    }
    float sum = 0;
    for (uint split = 0; split < SPLITS; ++split) {
        sum += INPUT(split * ELEMENTS + element);
    }
    OUTPUT(element) = (pc.flags & FLAG_ACCUMULATE) != 0 ? OUTPUT(element) + sum : sum;
}
