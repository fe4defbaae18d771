// dbias: the sum of each output channel's gradients over all pixels of the batch. A workgroup sums one channel's of one
// split: each thread a stride of them, or of vectors of four, then threads in pairs. Splits are summed by
// reduce-splits.glsl.
#version 450
#extension GL_GOOGLE_include_directive : require

#define BIAS_ACCESS
#define OUTPUT_ACCESS readonly
#define OUTPUT_VECTORS readonly
#include "lib/problem.glsl"
#include "lib/vectors.glsl"

#define SPLIT_PIXELS pc.extra_0 // output pixels that one split sums
#define FIRST_SPLIT pc.extra_1  // slice that the first split of this dispatch writes

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

const uint RUN = VECTORS != 0 ? 4 : 1; // elements that are read at once

shared float sums[THREADS];

vec4 read(uint pixel, uint channel) {
    uint plane = pc.P * pc.Q;
    uint at = (pixel / plane * pc.K + channel) * plane + pixel % plane;
    return VECTORS != 0 ? OUTPUT_VECTOR(at / 4) : vec4(OUTPUT(at), 0, 0, 0);
}

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    uint channel = tile % pc.K;
    uint split = tile / pc.K;
    uint first = split * SPLIT_PIXELS;
    uint end = min(first + SPLIT_PIXELS, pc.N * pc.P * pc.Q);
    vec4 sum = vec4(0);
    for (uint pixel = first + gl_LocalInvocationIndex * RUN; pixel < end; pixel += THREADS * RUN) {
        sum += read(pixel, channel);
    }
    sums[gl_LocalInvocationIndex] = dot(sum, vec4(1));
    for (uint half_count = THREADS / 2; half_count > 0; half_count /= 2) {
        barrier();
        if (gl_LocalInvocationIndex < half_count) {
            sums[gl_LocalInvocationIndex] += sums[gl_LocalInvocationIndex + half_count];
        }
    }
    if (gl_LocalInvocationIndex == 0) {
        BIAS((FIRST_SPLIT + split) * pc.K + channel) = sums[0];
    }
}
