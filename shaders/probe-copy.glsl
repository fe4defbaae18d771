// Measures how fast the device moves bytes: copies extra_0 elements, RUN of them a thread.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "lib/problem.glsl"
#include "lib/elements.glsl"

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    float values[RUN];
    uint first = tile * THREADS * RUN + gl_LocalInvocationIndex;
    [[unroll]] for (uint i = 0; i < RUN; ++i) {
        values[i] = first + i * THREADS < pc.extra_0 ? INPUT(first + i * THREADS) : 0;
    }
    [[unroll]] for (uint i = 0; i < RUN; ++i) {
        if (first + i * THREADS < pc.extra_0) {
            OUTPUT(first + i * THREADS) = values[i];
        }
    }
}
