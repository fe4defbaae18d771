// One input channel a group: nothing to share between channels, so each thread computes RUN neighbouring
// results of one row straight from its source, and the caches serve the overlap between them.
//
// A depthwise weight is read raw: its one input channel makes [K][1][R][S] the packed order too.
//
// Sums run in two levels: PROMOTE products are chained, then added to the total.

#include "lib/taps.glsl"

#include "lib/elements.glsl"

const uint PROMOTE = 64;

void main() {
    uint runs = (RESULT_WIDTH + RUN - 1) / RUN;
    uint index = element_index();
    uint row = index / runs;
    uint channel = row / RESULT_HEIGHT % RESULT_CHANNELS;
    uint image = row / RESULT_HEIGHT / RESULT_CHANNELS;
    if (index == NO_ELEMENT || image >= pc.N) {
        return;
    }
    uint multiplier = pc.K / pc.groups;
    ivec2 pixel = ivec2(row % RESULT_HEIGHT, index % runs * RUN);
    uint chained = 0;
    float sums[RUN];
    float totals[RUN];
    [[unroll]] for (uint i = 0; i < RUN; ++i) {
        sums[i] = 0;
        totals[i] = 0;
    }
#ifdef BACKWARD_INPUT
    uint first_k = channel * multiplier;
    for (uint k = first_k; k < first_k + multiplier; ++k) {
        uint plane = (image * pc.K + k) * (SOURCE_HEIGHT * SOURCE_WIDTH);
#else
    {
        uint k = channel;
        uint plane = (image * pc.C + k / multiplier) * (SOURCE_HEIGHT * SOURCE_WIDTH);
#endif
        for (int r = 0; r < int(pc.R); ++r) {
            for (int s = 0; s < int(pc.S); ++s) {
                float weight = WEIGHT((k * pc.R + r) * pc.S + s);
                [[unroll]] for (uint i = 0; i < RUN; ++i) {
                    ivec2 source;
                    float value = 0;
                    if (source_pixel(pixel + ivec2(0, i), ivec2(r, s), source)) {
                        value = SOURCE(plane + uint(source.x) * SOURCE_WIDTH + uint(source.y));
                    }
                    sums[i] = fma(weight, value, sums[i]);
                }
                if (++chained == PROMOTE) {
                    chained = 0;
                    [[unroll]] for (uint i = 0; i < RUN; ++i) {
                        totals[i] += sums[i];
                        sums[i] = 0;
                    }
                }
            }
        }
    }
    uint at = row * RESULT_WIDTH + pixel.y;
    [[unroll]] for (uint i = 0; i < RUN; ++i) {
        if (pixel.y + i < RESULT_WIDTH) {
            store_result(at + i, channel, totals[i] + sums[i]);
        }
    }
}
