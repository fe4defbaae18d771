// result[i] = Σ over splits of partial[split][i], plus the bias of its channel, always in the same order, so that the bits
// never change: SUMMERS threads take every SUMMERS-th split each, and add what they have in pairs.
// Binding 0 holds the partial sums, binding 2 the bias, binding 3 the result: planes of P elements, K of them before the
// channels repeat. With no splits at all the result is zero.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define BIAS_ACCESS readonly
#define OUTPUT_ACCESS
#include "lib/problem.glsl"

#define SPLITS pc.extra_0
#define ELEMENTS pc.extra_1

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

layout(constant_id = 0) const uint SUMMERS = 4; // a power of two

const uint RUN = THREADS / SUMMERS; // elements of a workgroup
shared float sums[THREADS];

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    uint element = tile * RUN + gl_LocalInvocationIndex % RUN;
    float sum = 0;
    if (element < ELEMENTS) {
        for (uint split = gl_LocalInvocationIndex / RUN; split < SPLITS; split += SUMMERS) {
            sum += INPUT(split * ELEMENTS + element);
        }
    }
    for (uint adders = THREADS / 2; adders >= RUN; adders /= 2) {
        sums[gl_LocalInvocationIndex] = sum;
        barrier();
        if (gl_LocalInvocationIndex < adders) {
            sum += sums[gl_LocalInvocationIndex + adders];
        }
        barrier();
    }
    if (gl_LocalInvocationIndex < RUN && element < ELEMENTS) {
        if (pc.has_bias != 0) {
            sum += BIAS(element / pc.P % pc.K);
        }
        OUTPUT(element) = (pc.flags & FLAG_ACCUMULATE) != 0 ? OUTPUT(element) + sum : sum;
    }
}
