// Weight [K][C/g][R][S] to [group][tap][reduced channel][result channel], the order in which an implicit
// GEMM reads it; zeros pad the result channels to a multiple of four. Binding 0 is the raw weight, binding 3
// the packed one.
//
// A workgroup transposes a square of SIDE result channels × SIDE terms, [reduced channel][tap], through shared memory:
// it reads along the terms, which are neighbours in the raw weight (for an input gradient, those of one kernel), and
// writes along the result channels. Where threads side by side gain nothing by that, each stores what it has read.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "lib/problem.glsl"

#define FOR_BACKWARD_INPUT (pc.extra_0 != 0) // result channels are the convolution's input channels

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

layout(constant_id = 0) const bool THROUGH_SHARED = true;

const uint LOADS = SIDE * SIDE / THREADS;
const uint ROW = SIDE + 1; // threads that go down a column hit different banks
shared float square[SIDE * ROW];

// Which row of the packed weight holds that term of the group.
uint row_of(uint group, uint term, uint taps, uint reduced_count) {
    return (group * taps + term % taps) * reduced_count + term / taps;
}

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    uint c_count = pc.C / pc.groups;
    uint k_count = pc.K / pc.groups;
    uint taps = pc.R * pc.S;
    uint m_count = FOR_BACKWARD_INPUT ? c_count : k_count;
    uint reduced_count = FOR_BACKWARD_INPUT ? k_count : c_count;
    uint row = (m_count + 3) / 4 * 4;
    uint terms = reduced_count * taps;
    uint squares_m = (row + SIDE - 1) / SIDE;
    uint squares_terms = (terms + SIDE - 1) / SIDE;
    uint first_m = tile % squares_m * SIDE;
    uint first_term = tile / squares_m % squares_terms * SIDE;
    uint group = tile / squares_m / squares_terms;

    float weights[LOADS]; // all on their way before the first is stored
    [[unroll]] for (uint load = 0; load < LOADS; ++load) {
        uint i = load * THREADS + gl_LocalInvocationIndex;
        uint m = first_m + i / SIDE;
        uint term = first_term + i % SIDE;
        uint reduced = term / taps;
        uint k = FOR_BACKWARD_INPUT ? reduced : m;
        uint c = FOR_BACKWARD_INPUT ? m : reduced;
        weights[load] = 0;
        if (m < m_count && term < terms) {
            weights[load] = INPUT(((group * k_count + k) * c_count + c) * taps + term % taps);
        }
    }
    if (!THROUGH_SHARED) {
        [[unroll]] for (uint load = 0; load < LOADS; ++load) {
            uint i = load * THREADS + gl_LocalInvocationIndex;
            uint m = first_m + i / SIDE;
            uint term = first_term + i % SIDE;
            if (m < row && term < terms) {
                OUTPUT(row_of(group, term, taps, reduced_count) * row + m) = weights[load];
            }
        }
        return;
    }
    [[unroll]] for (uint load = 0; load < LOADS; ++load) {
        uint i = load * THREADS + gl_LocalInvocationIndex;
        square[i / SIDE * ROW + i % SIDE] = weights[load];
    }
    barrier();
    [[unroll]] for (uint load = 0; load < LOADS; ++load) {
        uint i = load * THREADS + gl_LocalInvocationIndex;
        uint m = first_m + i % SIDE;
        uint term = first_term + i / SIDE;
        if (m < row && term < terms) {
            OUTPUT(row_of(group, term, taps, reduced_count) * row + m) = square[i % SIDE * ROW + i / SIDE];
        }
    }
}
