// dweight (and dbias) where every group has one input channel: a workgroup sums one output channel's
// pixels of one split, each thread a stride of them, for up to TAPS kernel elements at once. Splits are
// summed by reduce-splits.glsl.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define WEIGHT_ACCESS
#define BIAS_ACCESS
#define OUTPUT_ACCESS readonly
#include "lib/problem.glsl"

#define SPLIT_PIXELS pc.extra_0 // output pixels that one split sums
#define FIRST_SPLIT pc.extra_1  // slice that the first split of this dispatch writes

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

const uint PROMOTE = 64; // pixels chained before they are added to the total

const uint COLUMNS = TAPS + 1; // and one for the bias
shared float partial[THREADS * COLUMNS];

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    uint taps = pc.R * pc.S;
    uint tap_blocks = (taps + TAPS - 1) / TAPS;
    uint first_tap = tile % tap_blocks * TAPS;
    uint k = tile / tap_blocks % pc.K;
    uint split = tile / tap_blocks / pc.K;

    uint plane = pc.P * pc.Q;
    uint pixels = pc.N * plane;
    uint first_pixel = split * SPLIT_PIXELS;
    uint end_pixel = min(first_pixel + SPLIT_PIXELS, pixels);
    uint c = k / (pc.K / pc.groups);

    float sums[COLUMNS];
    float totals[COLUMNS];
    [[unroll]] for (uint t = 0; t < COLUMNS; ++t) {
        sums[t] = 0;
        totals[t] = 0;
    }
    uint chained = 0;
    for (uint pixel = first_pixel + gl_LocalInvocationIndex; pixel < end_pixel; pixel += THREADS) {
        uint image = pixel / plane;
        uint in_plane = pixel % plane;
        float gradient = OUTPUT((image * pc.K + k) * plane + in_plane);
        ivec2 corner = ivec2(in_plane / pc.Q * pc.stride_h, in_plane % pc.Q * pc.stride_w)
            - ivec2(pc.padding_h, pc.padding_w);
        uint source_at = (image * pc.C + c) * (pc.H * pc.W);
        [[unroll]] for (uint t = 0; t < TAPS; ++t) {
            uint tap = first_tap + t;
            ivec2 source = corner + ivec2(tap / pc.S * pc.dilation_h, tap % pc.S * pc.dilation_w);
            float value = 0;
            if (tap < taps && uint(source.x) < pc.H && uint(source.y) < pc.W) {
                value = INPUT(source_at + uint(source.x) * pc.W + uint(source.y));
            }
            sums[t] = fma(gradient, value, sums[t]);
        }
        sums[TAPS] += gradient;
        if (++chained == PROMOTE) {
            chained = 0;
            [[unroll]] for (uint t = 0; t < COLUMNS; ++t) {
                totals[t] += sums[t];
                sums[t] = 0;
            }
        }
    }

    [[unroll]] for (uint t = 0; t < COLUMNS; ++t) {
        partial[t * THREADS + gl_LocalInvocationIndex] = totals[t] + sums[t];
    }
    barrier();
    for (uint half_count = THREADS / 2; half_count > 0; half_count /= 2) {
        if (gl_LocalInvocationIndex < half_count) {
            [[unroll]] for (uint t = 0; t < COLUMNS; ++t) {
                uint at = t * THREADS + gl_LocalInvocationIndex;
                partial[at] += partial[at + half_count];
            }
        }
        barrier();
    }
    uint t = gl_LocalInvocationIndex;
    uint channel = (FIRST_SPLIT + split) * pc.K + k;
    if (t < TAPS && first_tap + t < taps) {
        WEIGHT(channel * taps + first_tap + t) = partial[t * THREADS];
    }
    if (t == TAPS && first_tap == 0 && pc.has_bias != 0) {
        BIAS(channel) = partial[TAPS * THREADS];
    }
}
